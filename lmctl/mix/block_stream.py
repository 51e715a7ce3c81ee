"""Streamed training data: blocks of rows that are read one after the other, each shuffled on its own.

A block takes the place of an epoch: its number replaces the epoch in everything that is random, so that two blocks
share no masks, and a later pass over the stream has other ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import DataError
from lmctl.data.base import StreamPlace
from lmctl.mix.order import Drawn, RowStream, Spot
from lmctl.objective.base import Examples


@dataclass(frozen=True)
class BlockPosition:
    """Position of the beginning of a block in the stream."""

    number: int = 0
    """Number of blocks before it, in all passes over the stream."""
    before: int = 0
    """Number of rows of examples before it, in all passes."""
    epoch: int = 0
    """Number of complete passes over the stream before it."""
    at: StreamPlace | None = None
    """Position for the source to read from; None: the beginning of the stream."""


class BlockOfExamples(NamedTuple):
    """One block of a stream, as examples of the task's objective."""

    examples: Examples | None
    """None if the block is too short for a single row."""
    after: StreamPlace | None
    """Where the next block begins; None at the end of the stream."""


class ReadBlock(Protocol):
    """Reads one block of a task's stream."""

    def __call__(self, epoch: int, at: StreamPlace | None) -> BlockOfExamples:
        """The block of pass `epoch` (from 0) that begins at `at` (None: at the start); deterministic."""
        ...


@dataclass(frozen=True)
class Held:
    """The current block."""

    asked: BlockPosition
    place: BlockPosition
    """Where it begins: at `asked`, or later if the blocks between were too short for a row."""
    order: RowStream
    following: BlockPosition

    @property
    def size(self) -> int:
        return len(self.order.examples)

    def rows(self, start: int, count: int) -> Drawn:
        """Rows of the block from `start` on, which counts all rows of the task before."""
        return Drawn(self.order.examples, *self.order.rows(self._inside(start).rows, count))

    def rest_of_bucket(self, start: int) -> int:
        return self.order.rest_of_bucket(self._inside(start))

    def _inside(self, start: int) -> Spot:
        return Spot(self.place.number * self.size + start - self.place.before)


class BlockStream:
    """Endless stream of blocks of one task. One block is in memory; the next is read when its first row is needed."""

    def __init__(
        self,
        first: Examples,
        read: ReadBlock,
        seed: int,
        task: str,
        bucket: int = 1,
        bucket_tokens: int | None = None,
    ) -> None:
        """`first`: the examples of the first block, for their lengths and for inspection."""
        self.examples, self.read = first, read
        self._order: Callable[[Examples], RowStream] = lambda some: RowStream(some, seed, task, bucket, bucket_tokens)
        self.draws: CounterRng = self._order(first).draws
        self._held: Held | None = None

    @property
    def lengths(self) -> np.ndarray | None:
        """Positions per row of the first block, int64 [rows]; None if all rows have the same length."""
        return self.examples.lengths

    def first(self, count: int) -> Drawn:
        return self._order(self.examples).first(count)

    def draw(self, at: Spot, count: int) -> Iterator[tuple[Drawn, Spot]]:
        place, start, end = _place(at), at.rows, at.rows + count
        while start < end:
            held = self._block(place)
            some = min(end, held.place.before + held.size) - start
            drawn, start = held.rows(start, some), start + some
            ended = start == held.place.before + held.size
            place = held.following if ended else held.place
            del held  # frees the block while the caller collates its rows, so that one block is in memory
            yield drawn, Spot(start, asdict(place))

    def rest_of_bucket(self, at: Spot) -> int:
        return self._block(_place(at)).rest_of_bucket(at.rows)

    def _block(self, asked: BlockPosition) -> Held:
        """The first block with rows, at `asked` or after it."""
        if self._held is not None and asked in (self._held.asked, self._held.place):
            return self._held
        self._held = None  # free the old block before reading the next one
        place = asked
        while place.epoch <= asked.epoch + 1:
            examples, after = self.read(place.epoch, place.at)
            following = replace(place, number=place.number + 1, at=after)
            if after is None:
                following = replace(following, epoch=place.epoch + 1)
            if examples is not None:
                following = replace(following, before=place.before + len(examples))
                self._held = Held(asked, place, self._order(examples), following)
                return self._held
            place = following
        raise DataError("not one block of the stream has enough text for a row", "a smaller batch.seq_len, other data?")


def _place(at: Spot) -> BlockPosition:
    fields: dict[str, Any] = dict(at.block or {})
    return BlockPosition(**fields)
