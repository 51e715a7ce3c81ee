"""Rows of different lengths, without a loop over rows: gathered from a flat array, cut, joined and padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


def within(begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The numbers from each of `begins` to below each of `ends`, int64 [R], end to end."""
    sizes = ends - begins
    return np.repeat(ends - sizes.cumsum(), sizes) + np.arange(sizes.sum())


class Ragged(NamedTuple):
    """R rows of different lengths, end to end."""

    flat: np.ndarray
    """Integers [sum of lengths]."""
    lengths: np.ndarray
    """int64 [R]."""

    @classmethod
    def of(cls, rows: Sequence[np.ndarray]) -> Ragged:
        """The rows, each int64 [n]."""
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        return cls(np.concatenate([np.empty(0, dtype=np.int64), *rows]), lengths)

    @classmethod
    def spans(cls, array: np.ndarray, begins: np.ndarray, lengths: np.ndarray) -> Ragged:
        """`array[begin : begin + length]` for each of `begins` and `lengths`, int64 [R], as int64."""
        return cls(array[within(begins, begins + lengths)].astype(np.int64), lengths)

    def rows(self) -> list[np.ndarray]:
        """The rows as views."""
        return np.split(self.flat, self.lengths.cumsum()[:-1])

    def cut(self, lengths: np.ndarray | int) -> Ragged:
        """The first `lengths` of each row, or all of a shorter one."""
        kept = np.minimum(self.lengths, lengths)
        return (
            self
            if (kept == self.lengths).all()
            else Ragged.spans(self.flat, self.lengths.cumsum() - self.lengths, kept)
        )


def joined(parts: Sequence[int | Ragged], rows: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """`rows` rows that consist of `parts` from left to right, each a token that all rows have or a text per row, padded
    at the end: int64 [R, longest], and their lengths int64 [R]."""
    sizes = [part.lengths if isinstance(part, Ragged) else np.ones(rows, dtype=np.int64) for part in parts]
    lengths: np.ndarray = np.stack(sizes).sum(axis=0)
    ids = np.full((rows, int(lengths.max(initial=0))), pad, dtype=np.int64)
    flat, begins = ids.reshape(-1), np.arange(rows) * ids.shape[1]
    for part, size in zip(parts, sizes, strict=True):
        if isinstance(part, Ragged):
            flat[within(begins, begins + size)] = part.flat
        else:
            flat[begins] = part
        begins = begins + size
    return ids, lengths
