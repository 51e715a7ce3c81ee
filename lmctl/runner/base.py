"""The contract of the group `runner`: on which devices, with how many workers."""

from __future__ import annotations

from abc import abstractmethod

from lmctl.core.component import Component


class Where(Component):
    """Group `runner`: on which devices, with how many workers."""

    @abstractmethod
    def world(self) -> int:
        """How many processes this run wants (1: the one that is already here)."""

    @property
    def simulated(self) -> int | None:
        """Workers that are threads of the one process (`Plan.simulated_workers`); None: the processes are the
        workers."""
        return None

    @abstractmethod
    def on_cpu(self) -> bool:
        """Whether the run stays off the GPU."""
