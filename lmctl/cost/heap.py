"""Replay of a step's allocations on a heap like glibc's as training sets it (`lmctl.core.heap`), and the size it takes.

The smallest free block that is large enough is taken, from its beginning; blocks that are freed join their neighbours;
the end grows where nothing fits, and never shrinks.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

Trace = Sequence[tuple[int, int]]
"""Allocations and frees in order: a block's key and its bytes, 0 if it is freed."""

SPARE = 96
"""Bytes that a free block must have beyond an aligned one's size: 64 for the alignment, 32 for a rest."""
REPEATS = 12
"""Steps that are replayed. Equal ones need no more space from the second one on."""
SHORTEST = 0.4
"""Size of the smallest batch relative to the largest, where rows differ in length."""


class Heap:
    """Free blocks by size and by both ends."""

    def __init__(self) -> None:
        self.end = 0
        self._free: list[tuple[int, int]] = []
        """(bytes, start), sorted."""
        self._starts: dict[int, int] = {}
        """Bytes of the free block that starts there."""
        self._ends: dict[int, int] = {}
        """Start of the free block that ends there."""

    def take(self, size: int) -> int:
        """Start of a new block of `size` bytes."""
        place = bisect_left(self._free, (size + SPARE, 0))
        if place < len(self._free):
            free, start = self._free[place]
            self._remove(start)
            self._add(start + size, free - size)
            return start
        start = self._ends.get(self.end, self.end)
        if start < self.end:
            self._remove(start)
        self.end = start + size
        return start

    def give(self, start: int, size: int) -> None:
        """Free the block."""
        if (after := self._starts.get(start + size)) is not None:
            self._remove(start + size)
            size += after
        if (before := self._ends.get(start)) is not None:
            size += self._starts[before]
            self._remove(before)
            start = before
        self._add(start, size)

    def _add(self, start: int, size: int) -> None:
        if size:
            insort(self._free, (size, start))
            self._starts[start], self._ends[start + size] = size, start

    def _remove(self, start: int) -> None:
        size = self._starts.pop(start)
        del self._ends[start + size]
        del self._free[bisect_left(self._free, (size, start))]


def replayed(trace: Trace, ragged: bool) -> int:
    """Bytes of the heap after some steps of `trace`, each with a batch of another size if they are `ragged`, the
    largest last. Blocks that a step leaves behind are freed at its end; what it has not made itself is left out."""
    heap, generator = Heap(), np.random.default_rng(0)
    for step in range(REPEATS if ragged else 2):
        part = float(generator.uniform(SHORTEST, 1)) if ragged and step < REPEATS - 1 else 1.0
        alive: dict[int, tuple[int, int]] = {}
        for key, size in trace:
            if size:
                scaled = max(1, round(part * size))
                alive[key] = (heap.take(scaled), scaled)
            elif key in alive:
                heap.give(*alive.pop(key))
        for block in alive.values():
            heap.give(*block)
    return heap.end
