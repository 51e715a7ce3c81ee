"""Sliding windows over long texts, in which every token is predicted once.

A window longer than `stride` starts with tokens that an earlier one has predicted: they are context only (Baevski and
Auli 2019, section 5.3; stride = length - 1 is cheapest, stride = 1 most exact).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple


class ContextWindow(NamedTuple):
    """Consecutive tokens; each after the first `skip` + 1 is predicted from those before it."""

    ids: list[int]
    skip: int
    """Predictions at the start that are not counted."""
    first: bool
    """Whether it starts its text, so that a carried recurrent state is reset."""


def windows(pieces: Iterable[int], length: int, stride: int) -> Iterator[ContextWindow]:
    """`pieces` (special tokens included) in windows of up to `length` inputs, each `stride` predictions after the one
    before; every token but the first is predicted once. Memory: one window."""
    stream = iter(pieces)
    ids = list(islice(stream, length + 1))
    if len(ids) < 2:
        return
    yield ContextWindow(ids, 0, True)
    while fresh := list(islice(stream, stride)):
        # As much context as fits, at least the one token that the first prediction needs.
        kept = length + 1 - len(fresh)
        ids = [*ids[-kept:], *fresh]
        yield ContextWindow(ids, len(ids) - 1 - len(fresh), False)


def joined(documents: Iterable[list[int]], begin: int, end: int) -> Iterator[int]:
    """All documents as one stream, starting with `begin`, each ended by `end`."""
    yield begin
    for document in documents:
        yield from document
        yield end
