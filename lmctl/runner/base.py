"""The contract of the group `runner`: on which devices, in how many processes."""

from __future__ import annotations

from abc import abstractmethod

from lmctl.core.component import Component


class Where(Component):
    """Group `runner`: on which devices, in how many processes."""

    @abstractmethod
    def world(self) -> int:
        """How many processes this run wants (1: the one that is already here)."""

    @abstractmethod
    def on_cpu(self) -> bool:
        """Whether the run stays off the GPU."""
