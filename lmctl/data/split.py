"""The held-out split: which documents validate, decided by their content.

A document belongs to the same side wherever it stands in the corpus and whatever stands beside it in the file,
and a text that occurs twice is read once, so that nothing of the validation text can be trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lmctl.core.batch import Document, Split
from lmctl.core.errors import DataError

Read = Callable[[], Iterator[Document]]
"""Reads the corpus from its beginning, each time the same."""


@dataclass(frozen=True)
class Partition:
    """A corpus in two parts, both streamed from the source again at every reading."""

    train: Read
    valid: Read
    documents: int
    """Different documents in both parts together."""
    held_out: int
    """How many of them validate; 0 if sentences of the only document do."""
    duplicates: int
    """Documents left out because their text occurs earlier (or in the validation text)."""

    def read(self, split: Split) -> Iterator[Document]:
        return self.train() if split == "train" else self.valid()

    def __str__(self) -> str:
        held = f"{self.held_out:,} held out" if self.held_out else "its last sentences held out"
        dropped = f", {self.duplicates:,} duplicates dropped" if self.duplicates else ""
        return f"{self.documents:,} document{'s' * (self.documents != 1)} ({held}{dropped})"


def check_share(share: float) -> None:
    """ValueError unless `share` can be a share of the documents."""
    if not 0 < share < 1:
        raise ValueError(f"valid_share must be above 0 and below 1, got {share}")


def by_content(read: Read, share: float, name: str) -> Partition:
    """Hold out `share` of the documents (at least two of four or more, so that they can be told apart): those whose
    digests come first.

    Of a single document its last sentences are held out instead. `name` stands for the corpus in messages.
    """
    unique, counts = np.unique(_digests(read), return_counts=True)
    total = len(unique)
    duplicates = int(counts.sum()) - total
    if total == 0:
        raise DataError(f"{name} has no text: all of it is empty")
    repeated = frozenset(unique[counts > 1].tolist())
    if total == 1:
        return _by_sentences(lambda: _once(read, repeated), share, duplicates, name)
    held_out = min(total - 1, max(2 if total >= 4 else 1, round(share * total)))
    last = int(unique[held_out - 1])
    return Partition(
        train=lambda: (document for digest, document in _numbered(read, repeated) if digest > last),
        valid=lambda: (document for digest, document in _numbered(read, repeated) if digest <= last),
        documents=total,
        held_out=held_out,
        duplicates=duplicates,
    )


def by_text(read: Read, read_valid: Read, name: str, valid_name: str) -> Partition:
    """Validate on a text of its own; what of it occurs in the training text is dropped there."""
    valid, valid_counts = np.unique(_digests(read_valid), return_counts=True)
    train, train_counts = np.unique(_digests(read), return_counts=True)
    kept = np.setdiff1d(train, valid)
    if len(valid) == 0:
        raise DataError(f"{valid_name} has no text: all of it is empty")
    if len(kept) == 0:
        empty = "has no text: all of it is empty" if len(train) == 0 else f"has no document that is not in {valid_name}"
        raise DataError(f"{name} {empty}")
    banned = frozenset(np.intersect1d(train, valid).tolist())
    repeated = frozenset(train[train_counts > 1].tolist())
    repeated_valid = frozenset(valid[valid_counts > 1].tolist())
    return Partition(
        train=lambda: (document for digest, document in _numbered(read, repeated) if digest not in banned),
        valid=lambda: _once(read_valid, repeated_valid),
        documents=len(kept) + len(valid),
        held_out=len(valid),
        duplicates=int(train_counts.sum() + valid_counts.sum()) - len(kept) - len(valid),
    )


def _by_sentences(read: Read, share: float, duplicates: int, name: str) -> Partition:
    sentences = len(next(read()))
    if sentences < 2:
        raise DataError(
            f"{name} is one document of one sentence: nothing is left to train on when it is held out",
            "give more text, or layout=one_document_per_line, or valid_path=",
        )
    cut = sentences - min(sentences - 1, max(1, round(share * sentences)))
    return Partition(
        train=lambda: (document[:cut] for document in read()),
        valid=lambda: (document[cut:] for document in read()),
        documents=1,
        held_out=0,
        duplicates=duplicates,
    )


def _digest(document: Document) -> int:
    """The first 8 bytes of the sha256 of the text, white space evened out; ordered like the whole digest."""
    text = " ".join(" ".join(document).split())
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _digests(read: Read) -> np.ndarray:
    """uint64 [documents]: all that is kept in memory of a corpus of any size."""
    return np.fromiter((_digest(document) for document in read()), dtype=np.uint64)


def _numbered(read: Read, repeated: frozenset[int]) -> Iterator[tuple[int, Document]]:
    """Each document once, with its digest."""
    seen: set[int] = set()
    for document in read():
        digest = _digest(document)
        if digest in repeated:
            if digest in seen:
                continue
            seen.add(digest)
        yield digest, document


def _once(read: Read, repeated: frozenset[int]) -> Iterator[Document]:
    return (document for _, document in _numbered(read, repeated))
