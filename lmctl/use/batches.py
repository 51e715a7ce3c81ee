"""Any number of things in batches of similar length, answered in the order they came in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

POOL = 32
"""Batches that are sorted by length together; more pads less and answers later."""


def in_pools(things: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size`, the last one of what is left."""
    stream = iter(things)
    while block := list(islice(stream, size)):
        yield block


def by_length(
    things: Iterable[T],
    length: Callable[[T], int],
    rows: int,
    answer: Callable[[list[T]], Sequence[R]],
    same: bool = False,
    pool: int = POOL,
) -> Iterator[R]:
    """The answer to each thing, in order. `answer` gets at most `rows` of similar length at a time, the longest
    first, so that a lack of memory shows at once; with `same`, of exactly the same length. `pool` batches are
    sorted together: with 1, whoever feeds `things` by hand has answers after `rows` of them."""
    for taken in in_pools(things, rows * pool):
        order = sorted(range(len(taken)), key=lambda place: -length(taken[place]))
        answers: dict[int, R] = {}
        batch: list[int] = []
        for place in order:
            full = len(batch) == rows or (same and batch and length(taken[batch[0]]) != length(taken[place]))
            if full:
                answers.update(zip(batch, answer([taken[i] for i in batch]), strict=True))
                batch = []
            batch.append(place)
        answers.update(zip(batch, answer([taken[i] for i in batch]), strict=True))
        yield from (answers[place] for place in range(len(taken)))
