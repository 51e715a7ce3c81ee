"""Rows without padding: the corpus as one stream, cut into full rows (Liu et al. 2019, "full sentences").

The stream is every document in turn, each closed by one [SEP]; row i is `[CLS] stream[i * b : (i + 1) * b] [SEP]`.
Where the cuts fall moves from epoch to epoch, so that no piece is always at the edge of its row.
"""

from __future__ import annotations

import math

import numpy as np

from lmctl.core.store import TokenStore
from lmctl.core.vocabulary import Vocabulary

GOLDEN = (math.sqrt(5) - 1) / 2


class FullRows:
    """Random access to the rows of a store."""

    def __init__(self, store: TokenStore, vocabulary: Vocabulary, seq_len: int) -> None:
        self.store, self.vocabulary, self.body = store, vocabulary, seq_len - 2
        documents = len(store.documents) - 1
        self.starts = store.document_starts + np.arange(documents + 1)
        """int64 [D + 1]: where each document begins in the stream; d separators come before document d."""
        self.total = int(self.starts[-1])
        self.count = max(1, (self.total - self.body + 1) // self.body)
        self.slack = max(0, min(self.body - 1, self.total - self.count * self.body))
        """By how many positions the rows may be moved."""

    def __len__(self) -> int:
        return self.count

    def gather(self, rows: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        """int64 [R, seq_len] (shorter only if the whole corpus is shorter than one row)."""
        shift = (epochs * GOLDEN % 1.0 * (self.slack + 1)).astype(np.int64)
        stream = (rows * self.body + shift)[:, None] + np.arange(min(self.body, self.total))
        document = np.searchsorted(self.starts, stream, side="right") - 1
        separator = stream == self.starts[document + 1] - 1
        token = np.minimum(stream - document, len(self.store) - 1)
        ids = np.empty((len(rows), stream.shape[1] + 2), dtype=np.int64)
        ids[:, 0], ids[:, -1] = self.vocabulary.cls, self.vocabulary.sep
        ids[:, 1:-1] = np.where(separator, self.vocabulary.sep, self.store.tokens[token])
        return ids
