"""Loss balancing with learned uncertainty (`mix.balance`), on top of the tasks' fixed weights."""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import Tensor, nn


class Uncertainty(nn.Module):
    """Uncertainty weighting (Kendall et al. 2018, section 3): per term exp(-s) L + s / 2, or exp(-s) L / 2 + s / 2 for
    a squared error L, where s = log sigma^2 is trained with the network. The task's weight multiplies both parts, so
    that it keeps its effect; s then converges where exp(-s) L is 1/2 (or 1), whatever that weight is."""

    def __init__(self, names: list[str], squared: Container[str] = ()) -> None:
        """`names` of all terms, `squared`: those that are squared errors."""
        super().__init__()
        self.places = {name: place for place, name in enumerate(names)}
        self.halved = {name: 0.5 if name in squared else 1.0 for name in names}
        self.log_variance = nn.Parameter(torch.zeros(len(names)))

    def forward(self, name: str, loss: Tensor, part: float) -> Tensor:
        """Weighted loss with its share of the regulariser. `loss`: this micro-batch's part of the mean of a term (with
        the distillation losses on its targets), times the task's weight; `part`: the micro-batch's share of the term's
        targets, times the same weight."""
        s = self.log_variance[self.places[name]]
        return self.halved[name] * torch.exp(-s) * loss + part * s / 2
