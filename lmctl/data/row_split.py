"""The held-out split of labelled and parallel rows: by what a row says, so that no text is on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lmctl.core.batch import Row, Split
from lmctl.core.errors import DataError

Read = Callable[[], Iterator[Row]]
"""Reads the rows from the first one, each time the same."""


@dataclass(frozen=True)
class RowPartition:
    """Rows in two parts, both streamed from the source again at every reading."""

    read: Read
    read_valid: Read | None
    side: Callable[[int], bool]
    """Whether rows with this digest validate (of `read`; dropped there if `read_valid` has the validation rows)."""
    train_rows: int
    valid_rows: int
    dropped: int
    """Training rows left out because their text is among the validation rows."""
    sides: int

    def rows(self, split: Split) -> Iterator[Row]:
        if split == "valid" and self.read_valid is not None:
            return self.read_valid()
        return (row for row in self.read() if self.side(digest(row, self.sides)) == (split == "valid"))

    def __str__(self) -> str:
        dropped = f", {self.dropped:,} dropped that are held out as well" if self.dropped else ""
        return f"{self.train_rows:,} rows and {self.valid_rows:,} held out{dropped}"


def partition(read: Read, share: float, name: str, sides: int, read_valid: Read | None = None) -> RowPartition:
    """Hold out `share` of the different texts, those whose digests come first; or, with `read_valid`, whatever of
    `read` says the same as one of its rows. A row is told by its first `sides` texts."""
    digests = _digests(read, sides)
    if not len(digests):
        raise DataError(f"{name} has no rows")
    if read_valid is not None:
        valid = _digests(read_valid, sides)
        known = frozenset(valid.tolist())
        if not known:
            raise DataError(f"the validation text of {name} has no rows")
        inside = np.array([digest in known for digest in digests.tolist()])
        if inside.all():
            raise DataError(f"{name} has no row that is not among the validation rows")
        dropped, kept = int(inside.sum()), int((~inside).sum())
        return RowPartition(read, read_valid, known.__contains__, kept, len(valid), dropped, sides)
    unique = np.unique(digests)
    if len(unique) < 2:
        raise DataError(f"{name} has one text only: nothing is left to train on when it is held out", "give more rows")
    last = int(unique[min(len(unique) - 1, max(1, round(share * len(unique)))) - 1])
    held = int((digests <= last).sum())
    return RowPartition(read, None, lambda digest: digest <= last, len(digests) - held, held, 0, sides)


def digest(row: Row, sides: int) -> int:
    """64 bits of what the first `sides` texts of a row say, white space evened out."""
    text = "\x00".join(" ".join(side.split()) for side in row.texts[:sides])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _digests(read: Read, sides: int) -> np.ndarray:
    """uint64 [rows]: all that is kept in memory of rows of any number."""
    return np.fromiter((digest(row, sides) for row in read()), dtype=np.uint64)
