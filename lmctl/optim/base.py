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
    weight_decay: float = 0.0
    """Share of every matrix that a step takes off, times the learning rate; vectors do not decay."""
    layer_decay: float = 1.0
    """What each layer's learning rate is of that of the layer above."""

    def __post_init__(self) -> None:
        """ValueError for what no rule can work with."""
        if self.lr <= 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay is a factor above 0, up to 1, got {self.layer_decay}")

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


def check_moments(betas: list[float], eps: float) -> None:
    """ValueError unless these are settings of Adam."""
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas are two numbers from 0 to below 1, got {betas}")
    if eps <= 0:
        raise ValueError(f"eps must be above 0, got {eps}")
