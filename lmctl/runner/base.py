"""Base class of the group `runner`: devices, and number of data-parallel workers."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from lmctl.core.component import Component

if TYPE_CHECKING:
    from lmctl.compression.base import GradCompressor
    from lmctl.parallel.processes import Processes
    from lmctl.parallel.strategy import Strategy


class Runner(Component):
    """Group `runner`: devices, and number of data-parallel workers."""

    @abstractmethod
    def world(self) -> int:
        """The number of processes of the run (1: no further process is started)."""

    @property
    def simulated(self) -> int | None:
        """Number of simulated workers, threads of one process (`Plan.simulated_workers`); None: each process is one
        worker."""
        return None

    def shards(self, world: int) -> int:
        """Over how many of `world` processes weights are spread; 1: each has all of them."""
        return 1

    @abstractmethod
    def on_cpu(self) -> bool:
        """Whether the run uses the CPU only."""

    @abstractmethod
    def strategy(self, processes: Processes, compression: GradCompressor, clip_norm: float | None) -> Strategy:
        """How the workers share weights and gradients."""
