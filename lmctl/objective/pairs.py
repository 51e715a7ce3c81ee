"""Segment pairs for next-sentence prediction (Devlin et al. 2019, appendix A.2) and sentence-order prediction.

The corpus is cut once into chunks of consecutive sentences, each about one row long, and a row is one chunk. For
next-sentence prediction its sentences up to a random split are segment A; segment B is the rest of the chunk or, half
of the time, text from another document. For sentence order A and B are the halves of the chunk (with the split shifted
by up to half its sentences), swapped half of the time. All this is drawn anew in every epoch.

The label cannot be predicted from superficial features. Text from another document is the rest of another chunk, with
as many tokens and sentences as the row's own rest. (The paper's script fills the row with any text, and calls every
chunk of a single sentence "random": there lengths alone predict 63 % of the labels, measured on Python's
documentation.) Swapped segments are cut to the length of the shorter one, because the sentences at the start of a
document, such as headings, are shorter than others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import DataError
from lmctl.core.ragged import Ragged, joined
from lmctl.core.vocabulary import Rewrite
from lmctl.objective.base import Material
from lmctl.objective.segments import Continuations, chunks, cut, shortened

IS_NEXT, IS_RANDOM = 0, 1
"""Labels of next-sentence prediction, as in `BertForPreTraining`."""

IN_ORDER, SWAPPED = 0, 1
"""Labels of sentence-order prediction, as in ALBERT."""

DRAWS_PER_ROW = 6
"""Uniform numbers per row: split, label, other text, neighbour if there is no match, whether short, length if short.
One per position is added for truncation."""


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


class Segments(NamedTuple):
    """Token ranges of A and B in each row, and their maximum lengths."""

    begin: np.ndarray
    """int64 [2, R], in tokens."""
    end: np.ndarray
    """int64 [2, R]."""
    lengths: np.ndarray
    """int64 [2, R]: maximum lengths of A and B, independent of the label."""
    labels: np.ndarray
    """int64 [R]."""


def no_pairs() -> DataError:
    """The error for a corpus without any pair."""
    return DataError(
        "pairs of segments need documents of two sentences or more, and no document has two",
        "say where documents end with data.layout=..., or use mix=mlm",
    )


class Pairs(ABC):
    """Random access to the pairs of a store; subclasses define the label."""

    def __init__(self, material: Material, short_share: float) -> None:
        self.store, self.vocabulary, self.rewrite = material.store, material.vocabulary, material.rewrite
        self.room, self.short_share = material.seq_len - 3, short_share
        self.first, self.last, self.document = chunks(self.store, self.room)
        if not len(self.first):
            raise no_pairs()

    @abstractmethod
    def segments(self, rows: np.ndarray, draws: np.ndarray) -> Segments:
        """A and B of the chunks `rows` int64 [R]; `draws` float64 [4, R] are uniform."""

    def __len__(self) -> int:
        return len(self.first)

    def gather(self, rows: np.ndarray, epochs: np.ndarray, uniforms: np.ndarray, draws: CounterRng) -> PairRows:
        """Pairs of the chunks `rows` int64 [R], drawn with `uniforms` float64 [R, DRAWS_PER_ROW + coins]; `draws` are
        for the augmentation, if there is one."""
        *choices, shortness, length = uniforms[:, :DRAWS_PER_ROW].T
        coins = uniforms[:, DRAWS_PER_ROW:] < 0.5
        begin, end, lengths, labels = self.segments(rows, np.stack(choices))
        room = np.where(shortness < self.short_share, 2 + (length * (self.room - 1)).astype(np.int64), self.room)
        begin, end = cut(begin, end, shortened(lengths, room), coins)
        texts = [Ragged.spans(self.store.tokens, *side) for side in zip(begin, end - begin, strict=True)]
        if self.rewrite is not None:
            texts = self._rewritten(texts, draws.named("augment").generators(epochs, rows), self.rewrite)
        return self._assemble(texts, labels)

    def _rewritten(
        self, texts: Sequence[Ragged], generators: Iterator[np.random.Generator], rewrite: Rewrite
    ) -> list[Ragged]:
        """A and B of each row augmented, and no longer than before."""
        before = [text for pair in zip(*(side.rows() for side in texts), strict=True) for text in pair]
        twice = (generator for generator in generators for _ in texts)
        after = [new[: len(old)] for new, old in zip(rewrite.all(before, twice), before, strict=True)]
        return [Ragged.of(after[side :: len(texts)]) for side in range(len(texts))]

    def _assemble(self, texts: Sequence[Ragged], labels: np.ndarray) -> PairRows:
        (a, b), sep = texts, self.vocabulary.sep
        ids, lengths = joined([self.vocabulary.cls, a, sep, b, sep], len(labels), self.vocabulary.pad)
        places = np.arange(ids.shape[1])
        segments = ((places >= a.lengths[:, None] + 2) & (places < lengths[:, None])).astype(np.int64)
        return PairRows(ids, segments, lengths, labels)


class NextSentencePairs(Pairs):
    """Next-sentence prediction: B follows A, or comes from another document."""

    def __init__(self, material: Material, short_share: float) -> None:
        if len(material.store.documents) < 3:
            raise DataError(
                "next-sentence prediction needs at least two documents (the wrong sentence comes from another one), "
                f"and this split has {len(material.store.documents) - 1}",
                "give more documents, say where documents end with data.layout=..., or use mix=mlm or mix=mlm_sop",
            )
        super().__init__(material, short_share)
        self.others = Continuations(self.store, self.first, self.last, self.document)

    def segments(self, rows: np.ndarray, draws: np.ndarray) -> Segments:
        place, label, *other = draws
        random = label < 0.5
        starts, first, last = self.store.sentences, self.first[rows], self.last[rows]
        middle = first + 1 + (place * (last - first - 1)).astype(np.int64)
        foreign, foreign_last = self.others.of_another(middle, last, self.document[rows], np.stack(other))
        own, length = starts[last] - starts[middle], starts[foreign_last] - starts[foreign]
        begin = np.stack([starts[first], starts[np.where(random, foreign, middle)]])
        end = np.stack([starts[middle], starts[np.where(random, foreign_last, last)]])
        lengths = np.stack([starts[middle] - starts[first], np.minimum(own, length)])
        return Segments(begin, end, lengths, np.where(random, IS_RANDOM, IS_NEXT))


class SentenceOrderPairs(Pairs):
    """Sentence-order prediction: A and B in order, or swapped."""

    def segments(self, rows: np.ndarray, draws: np.ndarray) -> Segments:
        slide, label, odd, _ = draws
        swapped = label < 0.5
        starts, documents, own = self.store.sentences, self.store.documents, self.document[rows]
        count = self.last[rows] - self.first[rows]
        first = self.first[rows] + np.floor((slide - 0.5) * count).astype(np.int64)
        first = np.clip(first, documents[own], documents[own + 1] - count)
        middle = first + (count + (odd < 0.5)) // 2
        begin, middle, end = starts[first], starts[middle], starts[first + count]
        shorter = np.minimum(middle - begin, end - middle)
        begins = np.stack([np.where(swapped, middle, begin), np.where(swapped, begin, middle)])
        ends = np.stack([np.where(swapped, end, middle), np.where(swapped, middle, end)])
        return Segments(begins, ends, np.stack([shorter, shorter]), np.where(swapped, SWAPPED, IN_ORDER))
