"""Held-out split of documents by content hash.

The split of a document does not depend on its position in the corpus or on its neighbours (as far as the share allows;
`holdout.py`). Duplicate texts are read once, so that no validation text is trained on.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import NamedTuple, TypeVar

import numpy as np

from lmctl.core.batch import Document, Row, Split
from lmctl.core.errors import DataError
from lmctl.data.holdout import digests_of, hold_out
from lmctl.data.kept_rows import kept

Item = TypeVar("Item")

Read = Callable[[], Iterator[Document]]
"""Reads the corpus from the start, always the same."""


TRAINS, VALIDATES, DROPPED = range(3)
"""What becomes of a row."""


def chosen(read: Callable[[], Iterator[Item]], fates: bytes, fate: int) -> Iterator[Item]:
    """The items of a reading that have this one of the `fates`, a byte for each; DataError if there are more or
    fewer."""
    for item, its in zip_longest(read(), fates):
        if item is None or its is None:
            raise DataError("a text changed while it was read", "run the same command again once nothing writes there")
        if its == fate:
            yield item


def fates_of(trains: np.ndarray, validates: np.ndarray | bool = False) -> bytes:
    """A byte for each item: what becomes of it; `trains` and `validates` bool [items]."""
    return np.where(validates, VALIDATES, np.where(trains, TRAINS, DROPPED)).astype(np.uint8).tobytes()


@dataclass(frozen=True)
class Partition:
    """A corpus in two splits, each streamed from the source at every reading."""

    train: Read
    valid: Read
    documents: int
    """Distinct documents in both splits together."""
    held_out: int
    """Number of validation documents; 0 if sentences of the only document validate."""
    duplicates: int
    """Documents dropped because their text occurs earlier (or in the validation text)."""
    off: float | None = None
    """The held-out share of the text, if it is not near the requested one."""

    def rows(self, split: Split) -> Iterator[Row]:
        return map(Row, self.read(split))

    def read(self, split: Split) -> Iterator[Document]:
        return self.train() if split == "train" else self.valid()

    def __str__(self) -> str:
        held = f"{self.held_out:,} held out" if self.held_out else "its last sentences held out"
        held += "" if self.off is None else f", {self.off:.1%} of the text"
        dropped = f", {self.duplicates:,} duplicates dropped" if self.duplicates else ""
        return f"{self.documents:,} document{'s' * (self.documents != 1)} ({held}{dropped})"


def check_share(share: float) -> None:
    """ValueError unless `share` is a valid share of the documents."""
    if not 0 < share < 1:
        raise ValueError(f"valid_share must be above 0 and below 1, got {share}")


def by_content(read: Read, share: float, name: str) -> Partition:
    """Hold out about `share` of the text in whole documents: those with the smallest digests.

    At least two of four or more documents, for next-sentence pairs, and none that is far too long if avoidable. Of a
    single document its last sentences are held out instead. `name` names the corpus in messages.
    """
    read = kept(read, list, list)
    corpus = _CorpusIndex.of(read)
    if corpus.documents == 0:
        raise DataError(f"{name} has no text: all of it is empty")
    if corpus.documents == 1:
        return _by_sentences(partial(chosen, read, fates_of(corpus.first), TRAINS), share, corpus, name)
    texts, where = np.unique(corpus.sides[corpus.first], return_inverse=True)
    if len(texts) < 2:
        raise DataError(
            f"{name} has one text only, in upper and lower case", "give more documents, or data.valid_path=FILE"
        )
    sizes = np.bincount(where, corpus.sizes[corpus.first]).astype(np.int64)
    held = hold_out(texts, sizes, share, 2 if len(texts) >= 4 else 1)
    inside = corpus.first & held.each(corpus.sides)
    fates = fates_of(corpus.first, inside)
    near = share / 2 <= held.share <= share * 2
    return Partition(
        train=partial(chosen, read, fates, TRAINS),
        valid=partial(chosen, read, fates, VALIDATES),
        documents=corpus.documents,
        held_out=int(inside.sum()),
        duplicates=corpus.duplicates,
        off=None if near else held.share,
    )


def by_text(read: Read, read_valid: Read, name: str, valid_name: str) -> Partition:
    """Validate on a separate text; documents of the training text that occur in it are dropped."""
    read, read_valid = kept(read, list, list), kept(read_valid, list, list)
    train, valid = _CorpusIndex.of(read), _CorpusIndex.of(read_valid)
    trains = train.first & ~np.isin(train.sides, valid.sides)
    count = int(trains.sum())
    if valid.documents == 0:
        raise DataError(f"{valid_name} has no text: all of it is empty")
    if count == 0:
        empty = (
            "has no text: all of it is empty"
            if train.documents == 0
            else f"has no document that is not in {valid_name}"
        )
        raise DataError(f"{name} {empty}")
    return Partition(
        train=partial(chosen, read, fates_of(trains), TRAINS),
        valid=partial(chosen, read_valid, fates_of(valid.first), TRAINS),
        documents=count + valid.documents,
        held_out=valid.documents,
        duplicates=valid.duplicates + len(trains) - count,
    )


def _by_sentences(read: Read, share: float, corpus: _CorpusIndex, name: str) -> Partition:
    sentences = len(next(read()))
    if sentences < 2:
        raise DataError(
            f"{name} is one document of one sentence: nothing is left to train on when it is held out",
            "give more text, or data.layout=one_document_per_line, or data.valid_path=FILE",
        )
    cut = sentences - min(sentences - 1, max(1, round(share * sentences)))
    return Partition(
        train=lambda: (document[:cut] for document in read()),
        valid=lambda: (document[cut:] for document in read()),
        documents=1,
        held_out=0,
        duplicates=corpus.duplicates,
    )


class _CorpusIndex(NamedTuple):
    """Everything that is kept in memory of a corpus of any size: some numbers per document."""

    sides: np.ndarray
    """uint64 [documents]: case-folded digest of each document, which decides its split."""
    sizes: np.ndarray
    """int64 [documents]: sizes in characters."""
    first: np.ndarray
    """bool [documents]: whether its text, with its case, has not occurred before."""

    @property
    def documents(self) -> int:
        """Number of distinct texts."""
        return int(self.first.sum())

    @property
    def duplicates(self) -> int:
        return len(self.first) - self.documents

    @classmethod
    def of(cls, read: Read) -> _CorpusIndex:
        texts, sides, sizes = array("Q"), array("Q"), array("q")
        for document in read():
            text, side = digests_of(" ".join(document))
            texts.append(text)
            sides.append(side)
            sizes.append(sum(map(len, document)))
        first = np.zeros(len(texts), dtype=bool)
        first[np.unique(np.array(texts, dtype=np.uint64), return_index=True)[1]] = True
        return cls(np.array(sides, dtype=np.uint64), np.array(sizes, dtype=np.int64), first)
