"""The contract of the group `optim`: the update rule."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from lmctl.core.component import Component

if TYPE_CHECKING:
    import torch
    from torch import nn


class OptimSpec(Component):
    """Group `optim`: the rule that turns gradients into updates."""

    lr: float
    """Peak learning rate; the schedule multiplies it."""

    @property
    def momentum(self) -> float:
        """Momentum that gradients get here, as in SGD; 0: none."""
        return 0.0

    @property
    def adaptive(self) -> bool:
        """Whether steps are divided by a running mean of squared gradients, and so have a momentum of their own, as
        Adam's."""
        return False

    @property
    def state_bits(self) -> int:
        """Bits of a number of its state."""
        return 32

    @abstractmethod
    def optimiser(self, network: nn.Module, device: torch.device) -> torch.optim.Optimizer:
        """The rule at work on the parameters of `network` that learn."""
