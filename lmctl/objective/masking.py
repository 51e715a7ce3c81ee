"""BERT's corruption of text (Devlin et al. 2019, section 3.1, Task 1), for whole batches at once.

Of every row a fixed share of its pieces is chosen; of the chosen ones 80 % become `[MASK]`, 10 % a random piece
and 10 % stay, and all of them are to be predicted. With `whole_words` the choice is made word by word, so that
no word is left half visible.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lmctl.core.vocabulary import Vocabulary

DRAWS_PER_POSITION = 3
"""One uniform number each for being chosen, for what happens then, and for the random piece."""


class Masked(NamedTuple):
    """A batch after corruption."""

    inputs: np.ndarray
    """int64 [R, L]."""
    positions: np.ndarray
    """int64 [N]: places in the flattened [R * L] batch that are to be predicted, ascending."""
    labels: np.ndarray
    """int64 [N]: the pieces that were there."""


def mask_tokens(
    ids: np.ndarray, uniforms: np.ndarray, vocabulary: Vocabulary, rate: float, whole_words: bool = False
) -> Masked:
    """Corrupt `ids` int64 [R, L] with the numbers `uniforms` float64 [R, 3 * L].

    Each row gets max(1, round(rate * n)) targets out of its n pieces that are not special (fewer where the last
    whole word does not fit), as in the paper's own code.
    """
    rows, length = ids.shape
    choice, action, piece = uniforms.reshape(rows, DRAWS_PER_POSITION, length).transpose(1, 0, 2)
    chosen = _choose(~vocabulary.special[ids], choice, rate, _word_starts(ids, vocabulary) if whole_words else None)
    positions = np.flatnonzero(chosen)
    labels = ids.reshape(-1)[positions]
    ordinary = np.flatnonzero(~vocabulary.special)
    random_pieces = ordinary[(piece.reshape(-1)[positions] * len(ordinary)).astype(np.int64)]
    what = action.reshape(-1)[positions]
    inputs = ids.copy()
    inputs.reshape(-1)[positions] = np.where(what < 0.8, vocabulary.mask, np.where(what < 0.9, random_pieces, labels))
    return Masked(inputs, positions, labels)


def _choose(eligible: np.ndarray, choice: np.ndarray, rate: float, starts: np.ndarray | None) -> np.ndarray:
    """bool [R, L]: per row the eligible positions with the smallest numbers, as many as `rate` asks for."""
    number = np.where(eligible, choice, np.inf)
    if starts is not None:  # every piece of a word shares the number of its first piece
        first = np.maximum.accumulate(np.where(starts, np.arange(starts.shape[1]), 0), axis=1)
        number = np.where(eligible, np.take_along_axis(choice, first, axis=1), np.inf)
    available = eligible.sum(axis=1)
    wanted = np.minimum(np.maximum(1, np.rint(rate * available).astype(np.int64)), available)
    ranked = np.sort(number, axis=1)
    last = np.take_along_axis(ranked, np.maximum(wanted - 1, 0)[:, None], axis=1)
    below, upto = (number < last) & eligible, (number <= last) & eligible
    # The last word is taken whole if it fits, or if it is all there is; without words, it always fits.
    fits = (upto.sum(axis=1) <= wanted) | (below.sum(axis=1) == 0)
    return np.where(fits[:, None], upto, below) & (wanted > 0)[:, None]


def _word_starts(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """bool [R, L]: a word begins here. Special pieces are words of their own, and so is what follows one."""
    special = vocabulary.special[ids]
    after_special = np.zeros_like(special)
    after_special[:, 1:] = special[:, :-1]
    starts = ~vocabulary.continues[ids] | special | after_special
    starts[:, 0] = True
    return starts
