"""Counter-based random numbers (Philox) instead of a stateful generator.

Masks from a global generator depend on all numbers drawn before, so they change when a run is resumed or when a batch
is split differently. Here every row of every epoch has its own random numbers: Philox (Salmon et al. 2011, "Parallel
random numbers: as easy as 1, 2, 3"), keyed by the seed and the purpose, with (epoch, row) as its counter. No state is
saved, and the numbers of any row can be computed at any time.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CounterRng:
    """The random numbers of one purpose (`"corpus/train"`, say) under one seed."""

    seed: int
    purpose: str

    def named(self, suffix: str) -> CounterRng:
        """The random numbers of another purpose under the same seed."""
        return CounterRng(self.seed, f"{self.purpose}/{suffix}")

    def generator(self, epoch: int, row: int) -> np.random.Generator:
        """A numpy Generator for one row of one epoch, where the number of draws is not known beforehand."""
        # Philox counts blocks in the lowest word; row and epoch sit above it, so generators never overlap.
        return np.random.Generator(np.random.Philox(key=self._key, counter=(epoch << 128) | (row << 64)))

    def generators(self, epochs: np.ndarray, rows: np.ndarray) -> Iterator[np.random.Generator]:
        """`generator` of each row in turn, much faster: one object whose counter is set anew for every row, so that it
        is of no use once the next one was asked for."""
        philox = np.random.Philox(key=self._key)
        generator, state = np.random.Generator(philox), philox.state
        counter = state["state"]["counter"]
        for epoch, row in zip(epochs.tolist(), rows.tolist(), strict=True):
            counter[1], counter[2] = row, epoch
            philox.state = state
            yield generator

    def uniforms(self, epochs: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
        """float64 [R, count] in [0, 1): `count` numbers for each (epoch, row)."""
        numbers = np.empty((len(rows), count))
        for line, generator in zip(numbers, self.generators(epochs, rows), strict=True):
            generator.random(out=line)
        return numbers

    def permutation(self, epoch: int, size: int) -> np.ndarray:
        """The shuffled order of `size` rows in `epoch`: int64 [size]."""
        return self.generator(epoch, (1 << 64) - 1).permutation(size)

    @property
    def _key(self) -> int:
        """128 bits: the seed below, the purpose above."""
        return (self.seed & 0xFFFFFFFFFFFFFFFF) | (zlib.crc32(self.purpose.encode()) << 64)
