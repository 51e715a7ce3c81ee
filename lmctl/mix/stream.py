"""Rows of each optimiser step (a window), drawn from all tasks of a mix in exact proportion.

Tasks are not sampled at random: each accumulates its share of every window, whole rows are dealt and the remainder is
carried over, so that shares are exact over any stretch of a run. The only state is the `Position`: a window is a pure
function of it, in any process and at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lmctl.core.batch import Batch, RowNumbers
from lmctl.core.counter_rng import CounterRng
from lmctl.mix.block_stream import BlockStream, ReadBlock
from lmctl.mix.mix import Mix
from lmctl.mix.order import Drawn, RowStream, Spot, TaskRows
from lmctl.objective.base import Examples


@dataclass(frozen=True)
class Position:
    """Position of a run in the data of each task."""

    rows: dict[str, int] = field(default_factory=dict)
    """Number of rows drawn, by task."""
    owed: dict[str, float] = field(default_factory=dict)
    """Remainders: fractions of rows carried over, by task."""
    blocks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Streamed tasks: the block of the next row, a `BlockPosition` of lmctl/mix/block_stream.py."""

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Position:
        return cls(**state)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": dict(self.rows), "owed": dict(self.owed), "blocks": dict(self.blocks)}

    def spot(self, task: str) -> Spot:
        return Spot(self.rows.get(task, 0), self.blocks.get(task))


@dataclass(frozen=True)
class Window:
    """This process's part of the rows of one optimiser step."""

    batches: list[Batch]
    factors: dict[str, float]
    """Factor of each task's losses in this step."""
    after: Position
    """Position after the window."""

    def pinned(self) -> Window:
        """The same window with its batches in pinned memory."""
        return replace(self, batches=[batch.pinned() for batch in self.batches])


class MixStream:
    """Windows of rows from all tasks of a mix."""

    def __init__(
        self,
        mix: Mix,
        examples: Mapping[str, Examples],
        seed: int,
        rows: int,
        tokens: int | None,
        blocks: Mapping[str, ReadBlock] | None = None,
        rows_at: Callable[[float], int] | None = None,
    ) -> None:
        """`rows` per window; with `tokens`, and a single task whose rows differ in length, as many rows as fit. Tasks
        in `blocks` are streamed; their `examples` are those of the first block. `rows_at`: rows per window, at most
        `rows`, when a share of the budget is spent."""
        self.mix, self.rows_at = mix, rows_at or (lambda progress: rows)
        self.by_tokens = tokens is not None and len(examples) == 1
        most, blocks = tokens if self.by_tokens else None, blocks or {}
        self.streams: dict[str, TaskRows] = {
            task: BlockStream(some, blocks[task], seed, task, rows, most)
            if task in blocks
            else RowStream(some, seed, task, rows, most)
            for task, some in examples.items()
        }
        self.sizes = {task: len(some) for task, some in examples.items()}
        by_tokens = mix.sampling.unit == "tokens"
        self.worth = {task: float(some.tokens_per_row) if by_tokens else 1.0 for task, some in examples.items()}
        """Units of the shares per row: 1, or tokens."""

    @property
    def total(self) -> int:
        """Rows of all tasks together: one epoch."""
        return sum(self.sizes.values())

    def first(self, task: str, count: int) -> Batch:
        """The first `count` rows that a run sees of a task (or all that are in memory, if these are fewer)."""
        stream = self.streams[task]
        examples, rows, epochs = stream.first(count)
        return collated(examples, rows, epochs, stream.draws)

    def window(self, at: Position, progress: float, micro: int | None, rank: int, world: int) -> Window:
        """The part of process `rank` of `world` in the window at `at`, in micro-batches of at most `micro` rows."""
        one, progress = dict.fromkeys(self.sizes, 1.0), min(1.0, max(0.0, progress))
        shares = one if len(one) == 1 else self.mix.shares(progress, self.sizes)
        counts, owed = self._deal(at, shares, self.rows_at(progress))
        total, before = sum(counts.values()), 0
        mine = range(*(total * part // world for part in (rank, rank + 1)))  # indices into the tasks' concatenated rows
        batches: list[Batch] = []
        spots: dict[str, Spot] = {}
        for task, count in counts.items():
            first, last = (min(max(place - before, 0), count) for place in (mine.start, mine.stop))
            stream, before, spots[task] = self.streams[task], before + count, at.spot(task)
            for drawn, after in stream.draw(spots[task], count):
                spots[task] = after
                batches += batched(drawn.part(first, last).at(progress), micro or max(1, count), stream.draws)
                first, last = (max(0, place - len(drawn.rows)) for place in (first, last))
        factors = {task: self._factor(task, count / total, shares) for task, count in counts.items()}
        rows = {task: spot.rows for task, spot in spots.items()}
        blocks = {task: dict(spot.block) for task, spot in spots.items() if spot.block is not None}
        return Window(batches, factors, Position(rows, owed, blocks))

    def _factor(self, task: str, part: float, shares: Mapping[str, float]) -> float:
        """Factor of a task's losses, which are means over its targets in the window, when `part` of the window's rows
        are its. It follows the actual rows, not the nominal share: later windows compensate for a window without the
        task, and over any stretch a task has its share, however few rows that is. If shares are of tokens, rows count
        in proportion to their length relative to other tasks."""
        longer = sum(share * self.worth[task] / self.worth[name] for name, share in shares.items())
        return self.mix.tasks[task].loss_weight * part * longer

    def _deal(self, at: Position, shares: Mapping[str, float], rows: int) -> tuple[dict[str, int], dict[str, float]]:
        """Whole rows per task for this window of `rows`, and the remainder of each task after it."""
        if len(shares) == 1:
            (task,) = shares
            stream = self.streams[task]
            fits = self.by_tokens and stream.lengths is not None
            return {task: stream.rest_of_bucket(at.spot(task)) if fits else rows}, {}
        wanted = {task: share / self.worth[task] for task, share in shares.items()}
        total = sum(wanted.values())
        owed = {task: at.owed.get(task, 0.0) + rows * part / total for task, part in wanted.items()}
        counts = {task: max(0, int(due)) for task, due in owed.items()}
        for _ in range(rows - sum(counts.values())):
            counts[max(owed, key=lambda name: owed[name] - counts[name])] += 1
        for _ in range(sum(counts.values()) - rows):  # several tasks had drawn more than their share before
            counts[min(filter(counts.__getitem__, owed), key=lambda name: owed[name] - counts[name])] -= 1
        return counts, {task: due - counts[task] for task, due in owed.items()}


def batched(drawn: Drawn, micro: int, draws: CounterRng) -> Iterator[Batch]:
    """Collate the rows in batches of at most `micro` rows."""
    examples, rows, epochs = drawn
    for start in range(0, len(rows), micro):
        piece = slice(start, start + micro)
        yield collated(examples, rows[piece], epochs[piece], draws)


def collated(examples: Examples, rows: np.ndarray, epochs: np.ndarray, draws: CounterRng) -> Batch:
    """Collate `rows` int64 [R], each with its own epoch, to a batch that has their numbers."""
    return replace(examples.collate(rows, epochs, draws), rows=RowNumbers(rows, epochs))
