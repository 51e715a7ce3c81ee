"""Base class of the group `runner`: devices, and number of data-parallel workers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmctl.core.component import Component

if TYPE_CHECKING:
    from lmctl.compression.base import GradCompressor
    from lmctl.parallel.processes import Processes
    from lmctl.parallel.strategy import Strategy
    from lmctl.plan import Plan

TIMEOUT_S = 1800.0
"""Seconds that a process waits for another one; torch's own default for gloo."""


@dataclass(frozen=True)
class Node:
    """This machine among those that a run is launched on."""

    nodes: int = 1
    rank: int = 0
    rendezvous: str = "localhost:0"
    """HOST:PORT at which the launchers meet, on the node of rank 0."""


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

    @property
    def offload(self) -> bool:
        """Whether shards are in host memory while a GPU computes with something else."""
        return False

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

    @property
    def timeout_s(self) -> float:
        """Seconds that a process waits for another one before the run ends."""
        return TIMEOUT_S

    @property
    def shared_run_dir(self) -> bool:
        """Whether all nodes see the same run directory."""
        return True

    def node(self) -> Node:
        """Which node this machine is; ConfigError if there are several and nothing says it."""
        return Node()

    def submits(self) -> bool:
        """Whether the command only submits the run to a cluster, where it is run."""
        return False
