"""Sentence pairs for next-sentence prediction (Devlin et al. 2019, appendix A.2).

The corpus is cut once into chunks of consecutive sentences about one row long. A row is one chunk: its sentences
up to a random place are segment A; segment B is the rest of the chunk, or, half of the time, as much text from
another document. Which half, where the cut is and what text: drawn anew in every epoch.

Two things differ from the paper's script, so that the length of a row says nothing about the label: text from
another document is as long as the rest of the chunk would have been (the script fills the row), and a chunk of a
single sentence borrows a neighbour (the script always calls it "random").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmctl.core.errors import DataError
from lmctl.core.store import TokenStore
from lmctl.core.vocabulary import Vocabulary

IS_NEXT, IS_RANDOM = 0, 1
"""The labels, as `BertForPreTraining` wants them."""

DRAWS_PER_ROW = 6
"""Cut, label, other document, sentence in it, shortness, length if short. A coin per position comes on top."""


@dataclass(frozen=True)
class PairRows:
    """A batch of pairs before masking."""

    ids: np.ndarray
    """int64 [R, L], padded with [PAD] at the end."""
    segments: np.ndarray
    """int64 [R, L]: 0 for [CLS] A [SEP], 1 for B [SEP], 0 for padding."""
    lengths: np.ndarray
    """int64 [R]."""
    labels: np.ndarray
    """int64 [R]: IS_NEXT or IS_RANDOM."""


class Pairs:
    """Random access to the pairs of a store."""

    def __init__(self, store: TokenStore, vocabulary: Vocabulary, seq_len: int, short_share: float) -> None:
        self.store, self.vocabulary = store, vocabulary
        self.room, self.short_share = seq_len - 3, short_share
        if len(store.documents) < 3:
            raise DataError(
                "next-sentence prediction needs at least two documents (the wrong sentence comes from another one), "
                f"and this split has {len(store.documents) - 1}",
                "give more documents, say where documents end with data.layout=..., or use mix=mlm",
            )
        self.first, self.last, self.document = chunks(store, self.room)
        if not len(self.first):
            raise DataError(
                "next-sentence prediction needs documents of two sentences or more, and no document has two",
                "say where documents end with data.layout=..., or use mix=mlm",
            )

    def __len__(self) -> int:
        return len(self.first)

    def gather(self, rows: np.ndarray, uniforms: np.ndarray) -> PairRows:
        """Pairs of the chunks `rows` int64 [R], drawn with `uniforms` float64 [R, DRAWS_PER_ROW + coins]."""
        cut, label, other, sentence, shortness, length = uniforms[:, :DRAWS_PER_ROW].T
        coins = uniforms[:, DRAWS_PER_ROW:] < 0.5
        begin, end = self._segments(rows, cut, label < 0.5, other, sentence)
        room = np.where(shortness < self.short_share, 2 + (length * (self.room - 1)).astype(np.int64), self.room)
        begin, end = truncate(begin, end, room, coins)
        return self._assemble(begin, end, np.where(label < 0.5, IS_RANDOM, IS_NEXT))

    def _segments(
        self, rows: np.ndarray, cut: np.ndarray, random: np.ndarray, other: np.ndarray, sentence: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Token ranges of A and B: begin and end, each int64 [2, R]."""
        starts, documents = self.store.sentences, self.store.documents
        first, last, own = self.first[rows], self.last[rows], self.document[rows]
        middle = first + 1 + (cut * (last - first - 1)).astype(np.int64)
        a_begin, a_end, rest_end = starts[first], starts[middle], starts[last]
        foreign = (other * (len(documents) - 2)).astype(np.int64)
        foreign += foreign >= own
        start = documents[foreign] + (sentence * (documents[foreign + 1] - documents[foreign])).astype(np.int64)
        b_begin = np.where(random, starts[start], a_end)
        stop = np.searchsorted(starts, b_begin + rest_end - a_end, side="left")
        b_end = np.where(random, starts[np.minimum(stop, documents[foreign + 1])], rest_end)
        return np.stack([a_begin, b_begin]), np.stack([a_end, b_end])

    def _assemble(self, begin: np.ndarray, end: np.ndarray, labels: np.ndarray) -> PairRows:
        a, b = end - begin
        lengths = a + b + 3
        ids = np.full((len(labels), int(lengths.max())), self.vocabulary.pad, dtype=np.int64)
        segments = np.zeros_like(ids)
        ids[:, 0] = self.vocabulary.cls
        tokens = self.store.tokens
        for row in range(len(labels)):
            middle = 1 + a[row]
            ids[row, 1:middle] = tokens[begin[0, row] : end[0, row]]
            ids[row, middle] = self.vocabulary.sep
            ids[row, middle + 1 : lengths[row] - 1] = tokens[begin[1, row] : end[1, row]]
            ids[row, lengths[row] - 1] = self.vocabulary.sep
            segments[row, middle + 1 : lengths[row]] = 1
        return PairRows(ids, segments, lengths, labels)


def chunks(store: TokenStore, room: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of at least two sentences of one document, about `room` tokens long: first, last + 1, document.

    A sentence belongs to the chunk in whose window of `room` tokens it begins; what hangs over is cut off later.
    """
    starts, documents = np.asarray(store.sentences), np.asarray(store.documents)
    owner = np.repeat(np.arange(len(documents) - 1), np.diff(documents))
    window = (starts[:-1] - starts[documents[owner]]) // room
    new = np.ones(len(owner), dtype=bool)
    new[1:] = (owner[1:] != owner[:-1]) | (window[1:] != window[:-1])
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(owner))
    document = owner[first]
    single = last - first == 1
    borrow_before = single & (first > documents[document])
    first = first - borrow_before
    last = last + (single & ~borrow_before & (last < documents[document + 1]))
    enough = last - first >= 2
    return first[enough], last[enough], document[enough]


def truncate(begin: np.ndarray, end: np.ndarray, room: np.ndarray, coins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut pairs down to `room` tokens: always from the longer segment (from B when equal), each token from its
    front or its back by a coin (`truncate_seq_pair` of the paper's code, in closed form). All int64 [2, R]."""
    length = end - begin
    excess = np.maximum(length.sum(axis=0) - room, 0)
    gap = length[0] - length[1]
    from_longer = np.minimum(np.abs(gap), excess)
    rest = excess - from_longer
    removed = np.stack(
        [np.where(gap > 0, from_longer, 0) + rest // 2, np.where(gap < 0, from_longer, 0) + (rest + 1) // 2]
    )
    heads = np.pad(coins.cumsum(axis=1), ((0, 0), (1, 0)))
    flips = coins.shape[1]
    row = np.arange(coins.shape[0])
    # Each segment has its own coins, A's from the left and B's from the right; a sentence longer than a whole row
    # of coins goes on in the same proportion.
    used = np.minimum(removed, flips // 2)
    a_front = heads[row, used[0]]
    b_front = heads[row, flips] - heads[row, flips - used[1]]
    share = np.stack([a_front, b_front]) / np.maximum(used, 1)
    front = np.where(removed > 0, np.rint(share * removed), 0).astype(np.int64)
    return begin + front, end - (removed - front)
