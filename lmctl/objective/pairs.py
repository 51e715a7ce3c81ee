"""Sentence pairs for next-sentence prediction (Devlin et al. 2019, appendix A.2) and for sentence order.

The corpus is cut once into chunks of consecutive sentences about one row long. A row is one chunk: its sentences
up to a random place are segment A; segment B is the rest of the chunk, or, half of the time, as much text from
another document (for sentence order: A and B change places). Which half, where the cut is and what text: drawn anew
in every epoch.

Two things differ from the paper's script, so that the length of a row says nothing about the label: text from
another document is as long as the rest of the chunk would have been (the script fills the row), and a chunk of a
single sentence borrows a neighbour (the script always calls it "random").
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmctl.core.draws import Draws
from lmctl.core.errors import DataError
from lmctl.core.store import TokenStore
from lmctl.core.tasks import Material
from lmctl.objective.batching import rectangle

IS_NEXT, IS_RANDOM = 0, 1
"""The labels of next-sentence prediction, as `BertForPreTraining` wants them."""

IN_ORDER, SWAPPED = 0, 1
"""The labels of sentence order, as ALBERT's."""

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
    """int64 [R]: IS_NEXT or IS_RANDOM, IN_ORDER or SWAPPED."""


class Pairs(ABC):
    """Random access to the pairs of a store. What the label is about, subclasses decide."""

    def __init__(self, material: Material, short_share: float) -> None:
        self.store, self.vocabulary, self.rewrite = material.store, material.vocabulary, material.rewrite
        self.room, self.short_share = material.seq_len - 3, short_share
        self.first, self.last, self.document = chunks(self.store, self.room)
        if not len(self.first):
            raise DataError(
                "pairs of segments need documents of two sentences or more, and no document has two",
                "say where documents end with data.layout=..., or use mix=mlm",
            )

    @abstractmethod
    def segments(self, rows: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ranges of A and B, begin and end, each int64 [2, R], and the labels int64 [R]; `draws` float64
        [4, R] are uniform."""

    def __len__(self) -> int:
        return len(self.first)

    def gather(self, rows: np.ndarray, epochs: np.ndarray, uniforms: np.ndarray, draws: Draws) -> PairRows:
        """Pairs of the chunks `rows` int64 [R], drawn with `uniforms` float64 [R, DRAWS_PER_ROW + coins]; `draws`
        are for the augmentation, if there is one."""
        *choices, shortness, length = uniforms[:, :DRAWS_PER_ROW].T
        coins = uniforms[:, DRAWS_PER_ROW:] < 0.5
        begin, end, labels = self.segments(rows, np.stack(choices))
        room = np.where(shortness < self.short_share, 2 + (length * (self.room - 1)).astype(np.int64), self.room)
        begin, end = truncate(begin, end, room, coins)
        texts = [
            [self.store.tokens[begin[side, row] : end[side, row]] for side in (0, 1)] for row in range(len(labels))
        ]
        if self.rewrite is not None:
            for place, (row, epoch) in enumerate(zip(rows.tolist(), epochs.tolist(), strict=True)):
                generator = draws.named("augment").generator(epoch, row)
                texts[place] = [self.rewrite(t.astype(np.int64), generator)[: len(t)] for t in texts[place]]
        return self._assemble(texts, labels)

    def _halves(self, rows: np.ndarray, cut: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where A begins, where it ends and B begins, where B ends, as tokens int64 [R], if nothing is changed."""
        starts, first, last = self.store.sentences, self.first[rows], self.last[rows]
        middle = first + 1 + (cut * (last - first - 1)).astype(np.int64)
        return starts[first], starts[middle], starts[last]

    def _assemble(self, texts: Sequence[Sequence[np.ndarray]], labels: np.ndarray) -> PairRows:
        cls, sep = [self.vocabulary.cls], [self.vocabulary.sep]
        ids, lengths = rectangle([np.concatenate([cls, a, sep, b, sep]) for a, b in texts], self.vocabulary.pad)
        places = np.arange(ids.shape[1])
        second = np.array([len(a) + 2 for a, _ in texts])[:, None]
        segments = ((places >= second) & (places < lengths[:, None])).astype(np.int64)
        return PairRows(ids, segments, lengths, labels)


class NextSentencePairs(Pairs):
    """B follows A, or comes from another document."""

    def __init__(self, material: Material, short_share: float) -> None:
        if len(material.store.documents) < 3:
            raise DataError(
                "next-sentence prediction needs at least two documents (the wrong sentence comes from another one), "
                f"and this split has {len(material.store.documents) - 1}",
                "give more documents, say where documents end with data.layout=..., or use mix=mlm or mix=mlm_sop",
            )
        super().__init__(material, short_share)

    def segments(self, rows: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        cut, label, other, sentence = draws
        random = label < 0.5
        starts, documents, own = self.store.sentences, self.store.documents, self.document[rows]
        a_begin, a_end, rest_end = self._halves(rows, cut)
        foreign = (other * (len(documents) - 2)).astype(np.int64)
        foreign += foreign >= own
        start = documents[foreign] + (sentence * (documents[foreign + 1] - documents[foreign])).astype(np.int64)
        b_begin = np.where(random, starts[start], a_end)
        stop = np.searchsorted(starts, b_begin + rest_end - a_end, side="left")
        b_end = np.where(random, starts[np.minimum(stop, documents[foreign + 1])], rest_end)
        labels = np.where(random, IS_RANDOM, IS_NEXT)
        return np.stack([a_begin, b_begin]), np.stack([a_end, b_end]), labels


class SentenceOrderPairs(Pairs):
    """A and B follow each other, or have changed places."""

    def segments(self, rows: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        cut, label, *_ = draws
        swapped = label < 0.5
        begin, middle, end = self._halves(rows, cut)
        begins = np.stack([np.where(swapped, middle, begin), np.where(swapped, begin, middle)])
        ends = np.stack([np.where(swapped, end, middle), np.where(swapped, middle, end)])
        return begins, ends, np.where(swapped, SWAPPED, IN_ORDER)


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
