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
    alike: Callable[[T], int] | None = None,
    pool: int = POOL,
) -> Iterator[R]:
    """The answer to each thing, in order. `answer` gets at most `rows` of similar length at a time, the longest
    first, so that a lack of memory shows at once; and only such for which `alike` says the same number. `pool` batches
    are sorted together: with 1, whoever feeds `things` by hand has answers after `rows` of them."""
    for taken in in_pools(things, rows * pool):
        kinds = [0 if alike is None else alike(thing) for thing in taken]
        order = sorted(range(len(taken)), key=lambda place: (-length(taken[place]), kinds[place]))
        answers: dict[int, R] = {}
        batch: list[int] = []
        for place in order:
            if len(batch) == rows or (batch and kinds[batch[0]] != kinds[place]):
                answers.update(zip(batch, answer([taken[i] for i in batch]), strict=True))
                batch = []
            batch.append(place)
        answers.update(zip(batch, answer([taken[i] for i in batch]), strict=True))
        yield from (answers[place] for place in range(len(taken)))
