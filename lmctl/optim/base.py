"""Base class of the group `optim`: the settings of an optimiser."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from lmctl.core.component import Component

if TYPE_CHECKING:
    import torch
    from torch import nn


class OptimSpec(Component):
    """Group `optim`: the settings of an optimiser, and how it is made."""

    lr: float
    """Peak learning rate; the schedule multiplies it."""
    weight_decay: float = 0.0
    """Decoupled weight decay of matrices, multiplied by the learning rate in every step; vectors do not decay."""
    layer_decay: float = 1.0
    """Layer-wise learning rate decay: a layer's learning rate divided by that of the layer above."""

    def __post_init__(self) -> None:
        """ValueError for settings that no optimiser can use."""
        if self.lr <= 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay is a factor above 0, up to 1, got {self.layer_decay}")

    @property
    def momentum(self) -> float:
        """Momentum of the gradients, as in SGD; 0: none."""
        return 0.0

    @property
    def adaptive(self) -> bool:
        """Whether updates are divided by the root of a running mean of squared gradients, as in Adam, which also has
        momentum (betas)."""
        return False

    @property
    def state_bits(self) -> int:
        """Bits per value of the optimiser state."""
        return 32

    @property
    def whole_matrices(self) -> bool:
        """Whether an update looks at a matrix as a whole."""
        return False

    @abstractmethod
    def optimiser(self, network: nn.Module, device: torch.device) -> torch.optim.Optimizer:
        """The torch optimiser over the trainable parameters of `network`."""


def check_moments(betas: list[float], eps: float) -> None:
    """ValueError unless `betas` and `eps` are valid for Adam."""
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas are two numbers from 0 to below 1, got {betas}")
    if eps <= 0:
        raise ValueError(f"eps must be above 0, got {eps}")
