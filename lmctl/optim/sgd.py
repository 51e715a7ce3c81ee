"""Stochastic gradient descent, plain or with momentum, as in the published LSTM language models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmctl.core.shards import is_sharded
from lmctl.optim.base import OptimSpec
from lmctl.optim.groups import parameter_groups

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Sgd(OptimSpec):
    """SGD with weight decay on matrices only (no biases, norms or other vectors)."""

    lr: float = 1.0
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be from 0 to below 1, got {self.momentum}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs momentum above 0")

    def optimiser(self, network: nn.Module, device: torch.device) -> torch.optim.Optimizer:
        import torch

        groups = parameter_groups(network, self.weight_decay, self.layer_decay)
        fused = not any(map(is_sharded, network.parameters()))  # torch has no such kernel for shards
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, fused=fused)
