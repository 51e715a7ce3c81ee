"""Shuffling and length bucketing: the order of one task's rows, a pure function of the number of rows already seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np

from lmctl.core.counter_rng import CounterRng
from lmctl.objective.base import Examples

POOL = 64
"""Batches sorted by length together: a larger pool has less padding, but an order that is less random."""


class Spot(NamedTuple):
    """Position of a run in the rows of one task."""

    rows: int = 0
    """Number of rows drawn."""
    block: Mapping[str, Any] | None = None
    """Streamed tasks: the block of the next row, a `BlockPosition` of lmctl/mix/block_stream.py."""


class Drawn(NamedTuple):
    """Rows to be collated to batches."""

    examples: Examples
    rows: np.ndarray
    """int64 [R]"""
    epochs: np.ndarray
    """int64 [R]: the epoch of each row."""

    def part(self, first: int, last: int) -> Drawn:
        """The slice from row `first` to row `last`."""
        return Drawn(self.examples, self.rows[first:last], self.epochs[first:last])

    def at(self, progress: float) -> Drawn:
        """The same rows as they are learnt from when `progress` of the budget is spent."""
        return self._replace(examples=self.examples.at(progress))


class TaskRows(Protocol):
    """Endless stream of one task's rows."""

    draws: CounterRng
    """Random numbers for the content of rows (masks, cuts)."""

    @property
    def lengths(self) -> np.ndarray | None:
        """Positions per row, int64 [rows]; None if all rows have the same length."""
        ...

    def first(self, count: int) -> Drawn:
        """The first `count` rows, or all that are in memory if these are fewer."""
        ...

    def draw(self, at: Spot, count: int) -> Iterator[tuple[Drawn, Spot]]:
        """The next `count` rows from `at` on, in consecutive parts, each with the position after it."""
        ...

    def rest_of_bucket(self, at: Spot) -> int:
        """Number of rows left in the length bucket of the row at `at`."""
        ...


def rows_draws(seed: int, task: str) -> CounterRng:
    """Random numbers for the content of a task's rows, independent of their order."""
    return CounterRng(seed, f"{task}/rows")


class RowStream:
    """Endless epochs over a task's examples, each shuffled on its own.

    Length bucketing: rows of different length come in buckets of similar length, the buckets in random order. A bucket
    has `bucket` rows, or as many as fill `bucket_tokens` positions when padded to its longest row.
    """

    def __init__(
        self, examples: Examples, seed: int, task: str, bucket: int = 1, bucket_tokens: int | None = None
    ) -> None:
        self.examples, self.bucket, self.bucket_tokens = examples, bucket, bucket_tokens
        self.order, self.draws = CounterRng(seed, f"{task}/order"), rows_draws(seed, task)
        self._epoch, self._permutation = -1, np.empty(0, dtype=np.int64)
        self._ends = np.empty(0, dtype=np.int64)

    @cached_property
    def lengths(self) -> np.ndarray | None:
        """Positions per row, int64 [len]; None if all rows have the same length."""
        return self.examples.lengths

    def first(self, count: int) -> Drawn:
        return Drawn(self.examples, *self.rows(0, min(count, len(self.examples))))

    def draw(self, at: Spot, count: int) -> Iterator[tuple[Drawn, Spot]]:
        yield Drawn(self.examples, *self.rows(at.rows, count)), Spot(at.rows + count)

    def rows(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows `start` to `start + count` of the stream, and their epochs: int64 [count] each."""
        epochs, places = np.divmod(np.arange(start, start + count), len(self.examples))
        rows = np.empty(count, dtype=np.int64)
        for epoch in np.unique(epochs):
            self._arrange(int(epoch))
            here = epochs == epoch
            rows[here] = self._permutation[places[here]]
        return rows, epochs

    def rest_of_bucket(self, at: Spot) -> int:
        epoch, place = divmod(at.rows, len(self.examples))
        self._arrange(epoch)
        return int(self._ends[np.searchsorted(self._ends, place, side="right")]) - place

    def _arrange(self, epoch: int) -> None:
        """Shuffle for `epoch`, unless the current order is already its."""
        if epoch == self._epoch:
            return
        size, self._epoch = len(self.examples), epoch
        if self.examples.tracks is not None:
            self._permutation, self._ends = np.arange(size), np.array([size])
            return
        self._permutation, self._ends = self.order.permutation(epoch, size), np.array([size])
        if self.lengths is not None:
            buckets = self._buckets(self._permutation, self.lengths)
            shuffled = [buckets[i] for i in self.order.named("buckets").permutation(epoch, len(buckets))]
            self._permutation = np.concatenate(shuffled)
            self._ends = np.cumsum([len(bucket) for bucket in shuffled])

    def _buckets(self, permutation: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        per_bucket = self.bucket
        if self.bucket_tokens is not None:
            per_bucket = max(1, int(self.bucket_tokens / max(1.0, float(lengths.mean()))))
        buckets: list[np.ndarray] = []
        for begin in range(0, len(permutation), POOL * per_bucket):
            pool = permutation[begin : begin + POOL * per_bucket]
            pool = pool[np.argsort(lengths[pool], kind="stable")]
            cuts = list(range(per_bucket, len(pool), per_bucket))
            if self.bucket_tokens is not None:
                cuts = _cuts(lengths[pool], self.bucket_tokens)
            buckets += np.split(pool, cuts)
        return buckets


def _cuts(ascending: np.ndarray, most: int) -> list[int]:
    """Split rows of `ascending` lengths so that each part, padded to its last row, has at most `most` positions (a
    single row may have more)."""
    cuts, begin = [], 0
    for place, length in enumerate(ascending.tolist()):
        if place > begin and (place - begin + 1) * length > most:
            cuts.append(place)
            begin = place
    return cuts
