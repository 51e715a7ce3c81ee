"""The contract of the group `schedule`: the learning rate over the budget."""

from __future__ import annotations

from abc import abstractmethod

from lmctl.core.component import Component


class Schedule(Component):
    """Group `schedule`: the learning rate over the budget."""

    @abstractmethod
    def factor(self, progress: float) -> float:
        """What the peak learning rate is multiplied by when `progress` (above 0, up to 1) of the budget is spent."""
