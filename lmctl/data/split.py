"""Held-out split of documents by content hash.

The split of a document does not depend on its position in the corpus or on its neighbours (as far as the share allows;
`holdout.py`). Duplicate texts are read once, so that no validation text is trained on.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lmctl.core.batch import Document, Row, Split
from lmctl.core.errors import DataError
from lmctl.data.holdout import digest_of, hold_out

Read = Callable[[], Iterator[Document]]
"""Reads the corpus from the start, always the same."""


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
    corpus = _CorpusIndex.of(read)
    if corpus.documents == 0:
        raise DataError(f"{name} has no text: all of it is empty")
    if corpus.documents == 1:
        return _by_sentences(lambda: _without_duplicates(read, corpus.repeated), share, corpus.duplicates, name)
    texts, where = np.unique(corpus.sides, return_inverse=True)
    if len(texts) < 2:
        raise DataError(
            f"{name} has one text only, in upper and lower case", "give more documents, or data.valid_path=FILE"
        )
    held = hold_out(texts, np.bincount(where, corpus.sizes).astype(np.int64), share, 2 if len(texts) >= 4 else 1)
    near = share / 2 <= held.share <= share * 2
    return Partition(
        train=lambda: (document for side, document in _distinct_documents(read, corpus.repeated) if not held(side)),
        valid=lambda: (document for side, document in _distinct_documents(read, corpus.repeated) if held(side)),
        documents=corpus.documents,
        held_out=sum(1 for side in corpus.sides if held(int(side))),
        duplicates=corpus.duplicates,
        off=None if near else held.share,
    )


def by_text(read: Read, read_valid: Read, name: str, valid_name: str) -> Partition:
    """Validate on a separate text; documents of the training text that occur in it are dropped."""
    train, valid = _CorpusIndex.of(read), _CorpusIndex.of(read_valid)
    banned = np.isin(train.sides, valid.sides)
    kept = int((~banned).sum())
    if valid.documents == 0:
        raise DataError(f"{valid_name} has no text: all of it is empty")
    if kept == 0:
        empty = (
            "has no text: all of it is empty"
            if train.documents == 0
            else f"has no document that is not in {valid_name}"
        )
        raise DataError(f"{name} {empty}")
    dropped = Digests(np.unique(train.sides[banned]))
    return Partition(
        train=lambda: (document for side, document in _distinct_documents(read, train.repeated) if side not in dropped),
        valid=lambda: _without_duplicates(read_valid, valid.repeated),
        documents=kept + valid.documents,
        held_out=valid.documents,
        duplicates=train.duplicates + valid.duplicates + train.documents - kept,
    )


def _by_sentences(read: Read, share: float, duplicates: int, name: str) -> Partition:
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
        duplicates=duplicates,
    )


class Digests:
    """A set of digests with 8 bytes each; a Python set needs ten times as much."""

    def __init__(self, digests: np.ndarray) -> None:
        """From sorted digests, uint64 [n]."""
        self.sorted = array("Q", digests.tobytes())

    def __len__(self) -> int:
        return len(self.sorted)

    def __contains__(self, digest: int) -> bool:
        return self.place(digest) is not None

    def place(self, digest: int) -> int | None:
        """Index among the sorted digests; None if it is missing."""
        place = bisect_left(self.sorted, digest)
        return place if place < len(self.sorted) and self.sorted[place] == digest else None


class _CorpusIndex(NamedTuple):
    """Everything that is kept in memory of a corpus of any size."""

    sides: np.ndarray
    """uint64 [documents]: case-folded digest of each distinct document, which decides its split."""
    sizes: np.ndarray
    """int64 [documents]: sizes in characters."""
    repeated: Digests
    """Digests of texts that occur more than once."""
    duplicates: int

    @property
    def documents(self) -> int:
        return len(self.sides)

    @classmethod
    def of(cls, read: Read) -> _CorpusIndex:
        texts, sides, sizes = array("Q"), array("Q"), array("q")
        for document in read():
            text, side = _digests(document)
            texts.append(text)
            sides.append(side)
            sizes.append(sum(map(len, document)))
        unique, first, copies = np.unique(np.array(texts, dtype=np.uint64), return_index=True, return_counts=True)
        repeated = Digests(unique[copies > 1])
        kept = (np.array(sides, dtype=np.uint64)[first], np.array(sizes, dtype=np.int64)[first])
        return cls(*kept, repeated, len(texts) - len(unique))


def _digests(document: Document) -> tuple[int, int]:
    """Digest of the text, and of the case-folded text."""
    text = " ".join(document)
    return digest_of([text], fold=False), digest_of([text])


def _distinct_documents(read: Read, repeated: Digests) -> Iterator[tuple[int, Document]]:
    """Each distinct document with the digest that decides its split."""
    seen = bytearray(len(repeated))
    for document in read():
        text, side = _digests(document)
        if (place := repeated.place(text)) is not None:
            if seen[place]:
                continue
            seen[place] = True
        yield side, document


def _without_duplicates(read: Read, repeated: Digests) -> Iterator[Document]:
    return (document for _, document in _distinct_documents(read, repeated))
