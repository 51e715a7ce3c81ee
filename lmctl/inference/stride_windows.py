"""Texts of any length cut into windows that a language model can read, so that every piece is predicted once.

A window longer than `stride` begins with pieces that an earlier one has predicted: they are context only (Baevski
and Auli 2019, section 5.3, a sliding window; stride = length - 1 is cheapest, stride = 1 most exact).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple


class Window(NamedTuple):
    """Pieces in a row; each after the first `skip` + 1 is predicted from those before it."""

    ids: list[int]
    skip: int
    """Predictions at the beginning that are not asked for."""
    first: bool
    """Whether it begins its text, so that a model that carries its state starts anew."""

    @property
    def asked(self) -> int:
        """How many pieces are predicted."""
        return len(self.ids) - 1 - self.skip


def windows(pieces: Iterable[int], length: int, stride: int) -> Iterator[Window]:
    """`pieces` (special ones included) in windows of up to `length` inputs, each going on `stride` predictions
    further than the last one; every piece but the first is predicted once. Memory: one window."""
    stream = iter(pieces)
    ids = list(islice(stream, length + 1))
    if len(ids) < 2:
        return
    yield Window(ids, 0, True)
    while fresh := list(islice(stream, stride)):
        # As much context as there is room for: never less than the one piece that the first prediction needs.
        kept = length + 1 - len(fresh)
        ids = [*ids[-kept:], *fresh]
        yield Window(ids, len(ids) - 1 - len(fresh), False)


def joined(documents: Iterable[list[int]], begin: int, end: int) -> Iterator[int]:
    """All documents as one stream, each closed by `end`, that begins with `begin`."""
    yield begin
    for document in documents:
        yield from document
        yield end
