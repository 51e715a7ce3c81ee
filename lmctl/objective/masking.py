"""BERT's masking (Devlin et al. 2019, section 3.1, Task 1), vectorised over batches.

In every row a fixed share of the tokens is selected; of these 80 % become `[MASK]`, 10 % a random token and 10 % stay,
and all of them are predicted. With `whole_words` whole words are selected, so that no word is partly visible: words in
random order are taken as long as they fit, as in google-research/bert's `create_masked_lm_predictions`. Words of many
tokens are thus selected less often than short ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lmctl.core.vocabulary import Vocabulary

DRAWS_PER_POSITION = 3
"""Uniform numbers per position: for the selection, the kind of replacement, and the random token."""


class Masked(NamedTuple):
    """A batch after masking."""

    inputs: np.ndarray
    """int64 [R, L]."""
    positions: np.ndarray
    """int64 [N]: flattened positions [R * L] to predict, ascending."""
    labels: np.ndarray
    """int64 [N]: the original tokens."""


def mask_tokens(
    ids: np.ndarray, uniforms: np.ndarray, vocabulary: Vocabulary, rate: float, whole_words: bool = False
) -> Masked:
    """Mask `ids` int64 [R, L] with the random numbers `uniforms` float64 [R, 3 * L].

    Each row gets max(1, round(rate * n)) targets out of its n tokens that are not special (the paper's own code counts
    [CLS] and [SEP] among them); fewer only if no remaining word is short enough, more if the only words of the row are
    longer than that.
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
    """bool [R, L]: per row the eligible positions with the smallest random numbers, as many as `rate` requires."""
    available = eligible.sum(axis=1)
    wanted = np.minimum(np.maximum(1, np.rint(rate * available).astype(np.int64)), available)
    if starts is not None:
        return np.stack([_choose_words(*row) for row in zip(eligible, choice, starts, wanted.tolist(), strict=True)])
    number = np.where(eligible, choice, np.inf)
    last = np.take_along_axis(np.sort(number, axis=1), np.maximum(wanted - 1, 0)[:, None], axis=1)
    return (number <= last) & (wanted > 0)[:, None]


def _choose_words(eligible: np.ndarray, choice: np.ndarray, starts: np.ndarray, wanted: int) -> np.ndarray:
    """bool [L]: whole words of a row, ordered by the random numbers of their first tokens, each that still fits in
    `wanted` tokens; the first one if none does."""
    word = starts.cumsum() - 1
    begins = np.flatnonzero(starts & eligible)
    taken = np.zeros(int(word[-1]) + 1, dtype=bool)
    sizes = np.bincount(word[eligible], minlength=len(taken))
    order = word[begins[np.argsort(choice[begins], kind="stable")]].tolist()
    left = wanted
    for place in order:
        if left == 0:
            break
        if sizes[place] <= left:
            taken[place] = True
            left -= int(sizes[place])
    if wanted and left == wanted:
        taken[order[0]] = True
    return taken[word] & eligible


def _word_starts(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """bool [R, L]: starts of words. Special tokens are words of their own, and a word starts after each."""
    special = vocabulary.special[ids]
    after_special = np.zeros_like(special)
    after_special[:, 1:] = special[:, :-1]
    starts = ~vocabulary.continues[ids] | special | after_special
    starts[:, 0] = True
    return starts
