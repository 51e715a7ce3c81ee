"""Packing: the corpus as one stream, cut into full rows without padding (Liu et al. 2019, "full sentences").

The stream is all documents in order, each ended by one [SEP]; row i is `[CLS] stream[i * b : (i + 1) * b] [SEP]`. The
cuts are shifted in every epoch, so that no token is always at the edge of its row.
"""

from __future__ import annotations

import math

import numpy as np

from lmctl.core.counter_rng import CounterRng
from lmctl.core.ragged import within
from lmctl.core.token_store import TokenStore
from lmctl.core.vocabulary import Rewrite, Vocabulary

GOLDEN = (math.sqrt(5) - 1) / 2


class PackedRows:
    """Random access to rows of `width` tokens of the stream, without special tokens around them."""

    def __init__(self, store: TokenStore, vocabulary: Vocabulary, width: int) -> None:
        self.store, self.vocabulary, self.width = store, vocabulary, width
        documents = len(store.documents) - 1
        self.starts = store.document_starts + np.arange(documents + 1)
        """int64 [D + 1]: start of each document in the stream; d separators come before document d."""
        self.total = int(self.starts[-1])
        self.count = max(1, (self.total - width + 1) // width)
        self.slack = max(0, min(width - 1, self.total - self.count * width))
        """Largest shift of the rows in positions."""

    def __len__(self) -> int:
        return self.count

    def stream(self, rows: np.ndarray, epochs: np.ndarray, width: int | None = None) -> np.ndarray:
        """int64 [R, width] (shorter only if the whole corpus is shorter than one row); the first `width` tokens of each
        row."""
        shift = (epochs * GOLDEN % 1.0 * (self.slack + 1)).astype(np.int64)
        begins, width = rows * self.width + shift, min(width or self.width, self.total)
        first, last = (np.searchsorted(self.starts, place, side="right") - 1 for place in (begins, begins + width - 1))
        row, document = np.repeat(np.arange(len(rows)), last - first + 1), within(first, last + 1)
        place = self.starts[document + 1] - 1 - begins[row]
        separator = np.zeros((len(rows), width), dtype=bool)
        separator[row[place < width], place[place < width]] = True
        before = first[:, None] + separator.cumsum(axis=1) - separator
        token = np.minimum(begins[:, None] + np.arange(width) - before, len(self.store) - 1)
        return np.where(separator, self.vocabulary.sep, self.store.tokens[token]).astype(np.int64)

    def gather(
        self,
        rows: np.ndarray,
        epochs: np.ndarray,
        rewrite: Rewrite | None,
        draws: CounterRng,
        width: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows, int64 [R, width], and their lengths without padding, int64 [R]: an augmentation may shorten a row,
        and the rest is padding. `width`: only so many of their first tokens (Li et al. 2022, section 4.1)."""
        ids = self.stream(rows, epochs, width)
        lengths = np.full(len(ids), ids.shape[1])
        if rewrite is not None:
            changed = rewrite.all(list(ids), draws.named("augment").generators(epochs, rows))
            for place, longest in enumerate(changed):
                pieces = longest[: ids.shape[1]]
                lengths[place] = len(pieces)
                ids[place, : len(pieces)], ids[place, len(pieces) :] = pieces, self.vocabulary.pad
        return ids, lengths


class FullRows:
    """Random access to the rows `[CLS] stream [SEP]` of a store."""

    def __init__(self, store: TokenStore, vocabulary: Vocabulary, seq_len: int) -> None:
        self.vocabulary = vocabulary
        self.packed = PackedRows(store, vocabulary, seq_len - 2)

    def __len__(self) -> int:
        return len(self.packed)

    @property
    def body(self) -> int:
        """Tokens of the stream in one row."""
        return self.packed.width

    def gather(
        self,
        rows: np.ndarray,
        epochs: np.ndarray,
        rewrite: Rewrite | None,
        draws: CounterRng,
        seq_len: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `PackedRows.gather`, special tokens included; of `seq_len` positions, if that is less."""
        body, lengths = self.packed.gather(rows, epochs, rewrite, draws, seq_len and seq_len - 2)
        ids = np.full((len(body), body.shape[1] + 2), self.vocabulary.pad, dtype=np.int64)
        ids[:, 0], ids[:, 1:-1] = self.vocabulary.cls, body
        ids[np.arange(len(ids)), lengths + 1] = self.vocabulary.sep
        return ids, lengths + 2
