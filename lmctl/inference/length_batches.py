"""Batching a stream by length, with results in the original order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from lmctl.core import progress

T = TypeVar("T")
R = TypeVar("R")

POOL = 32
"""Batches that are sorted by length together; more means less padding and more delay."""


def in_pools(things: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size`; the last one may be shorter."""
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
    """The result for each item, in order. `answer` gets at most `rows` items of similar length at a time, longest
    first, so that an out-of-memory error occurs early; and only items with the same value of `alike`. `pool` batches
    are sorted together: with 1, interactive input gets its results after `rows` items."""

    def answered(batch: list[int], taken: list[T]) -> Iterator[tuple[int, R]]:
        found = answer([taken[place] for place in batch])
        progress.advance(len(batch), "rows")
        return zip(batch, found, strict=True)

    for taken in in_pools(things, rows * pool):
        progress.expect(len(taken), "rows")
        kinds = [0 if alike is None else alike(thing) for thing in taken]
        order = sorted(range(len(taken)), key=lambda place: (-length(taken[place]), kinds[place]))
        answers: dict[int, R] = {}
        batch: list[int] = []
        for place in order:
            if len(batch) == rows or (batch and kinds[batch[0]] != kinds[place]):
                answers.update(answered(batch, taken))
                batch = []
            batch.append(place)
        answers.update(answered(batch, taken))
        yield from (answers[place] for place in range(len(taken)))
