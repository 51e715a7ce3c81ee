"""The rows of a streamed task: blocks that are read one after the other, the rows of each in an order of its own.

A block is what an epoch is elsewhere: its number takes the epoch's place in everything that is drawn, so that two
blocks share no masks, and a stream that begins anew shows its rows otherwise.
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
class Place:
    """Where a block begins."""

    number: int = 0
    """Blocks before it, those of earlier passes over the stream included."""
    before: int = 0
    """Rows of examples before it, likewise."""
    epoch: int = 0
    """Complete passes over the stream before it."""
    at: StreamPlace | None = None
    """What the source needs to find it; None: the beginning of the stream."""


class BlockOfExamples(NamedTuple):
    """What a task makes of a block."""

    examples: Examples | None
    """None if there is not enough in it for a single row."""
    after: StreamPlace | None
    """Where the next block begins; None at the end of the stream."""


class ReadBlock(Protocol):
    """How a task's blocks come about."""

    def __call__(self, epoch: int, at: StreamPlace | None) -> BlockOfExamples:
        """The block of pass `epoch` (from 0) that begins at `at`, None being its beginning; the same each time."""
        ...


@dataclass(frozen=True)
class Held:
    """The block at hand."""

    asked: Place
    place: Place
    """Where it begins: at `asked`, or behind it if there was nothing in the blocks between."""
    order: RowStream
    following: Place

    @property
    def size(self) -> int:
        return len(self.order.examples)

    def rows(self, start: int, count: int) -> Drawn:
        """Rows of the block, of which `start` rows of the task come before the first."""
        return Drawn(self.order.examples, *self.order.rows(self._inside(start).rows, count))

    def rest_of_bucket(self, start: int) -> int:
        return self.order.rest_of_bucket(self._inside(start))

    def _inside(self, start: int) -> Spot:
        return Spot(self.place.number * self.size + start - self.place.before)


class BlockStream:
    """Endless blocks of a streamed task; one of them is at hand, the next is read when its first row is due."""

    def __init__(
        self,
        first: Examples,
        read: ReadBlock,
        seed: int,
        task: str,
        bucket: int = 1,
        bucket_tokens: int | None = None,
    ) -> None:
        """`first`: the examples of the first block, to look at (not drawn from)."""
        self.examples, self.read = first, read
        self._order: Callable[[Examples], RowStream] = lambda some: RowStream(some, seed, task, bucket, bucket_tokens)
        self.draws: CounterRng = self._order(first).draws
        self._held: Held | None = None

    @property
    def lengths(self) -> np.ndarray | None:
        """int64 [rows of the first block]: positions per row, where they differ."""
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
            del held  # whoever collates this piece before asking for the next has one block in memory
            yield drawn, Spot(start, asdict(place))

    def rest_of_bucket(self, at: Spot) -> int:
        return self._block(_place(at)).rest_of_bucket(at.rows)

    def _block(self, asked: Place) -> Held:
        """The first block from `asked` on that has rows."""
        if self._held is not None and asked in (self._held.asked, self._held.place):
            return self._held
        self._held = None  # before the next one is made
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


def _place(at: Spot) -> Place:
    fields: dict[str, Any] = dict(at.block or {})
    return Place(**fields)
