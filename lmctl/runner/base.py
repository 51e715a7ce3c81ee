"""Base class of the group `runner`: devices, and number of data-parallel workers."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from lmctl.core.component import Component

if TYPE_CHECKING:
    from lmctl.compression.base import GradCompressor
    from lmctl.parallel.processes import Processes
    from lmctl.parallel.strategy import Strategy
    from lmctl.plan import Plan


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

    @property
    def every(self) -> int:
        """Steps between two exchanges of the workers."""
        return 1

    @abstractmethod
    def on_cpu(self) -> bool:
        """Whether the run uses the CPU only."""

    def check_world(self, world: int) -> None:
        """ConfigError if it cannot be run by `world` processes."""
        return

    def remarks(self, plan: Plan) -> list[str]:
        """Warnings for the user before the run starts."""
        return plan.compression.remarks(plan.optim)

    @abstractmethod
    def strategy(self, processes: Processes, compression: GradCompressor, clip_norm: float | None) -> Strategy:
        """How the workers share weights and gradients."""
