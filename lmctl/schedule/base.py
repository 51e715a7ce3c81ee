"""Base class of the group `schedule`: the learning rate over the training budget."""

from __future__ import annotations

from abc import abstractmethod

from lmctl.core.component import Component


class Schedule(Component):
    """Group `schedule`: the learning rate over the training budget."""

    @abstractmethod
    def factor(self, progress: float) -> float:
        """Multiplier of the peak learning rate when `progress` (above 0, up to 1) of the budget is spent."""
