"""Learnt weights of the losses of a mix (`mix.balance`), besides the weights of their tasks."""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import Tensor, nn


class Uncertainty(nn.Module):
    """Losses weighed by their learned noise (Kendall et al. 2018, section 3): for every term exp(-s) L + s / 2, or
    exp(-s) L / 2 + s / 2 where L is a squared error, s = log sigma^2 being learned with the network. What the mix has
    a task count for stands before both, so that it goes on counting; s then ends where exp(-s) L is 1/2 (or 1),
    whatever the task counts for."""

    def __init__(self, names: list[str], squared: Container[str] = ()) -> None:
        """`names` of all terms, `squared` of those that are squared errors."""
        super().__init__()
        self.places = {name: place for place, name in enumerate(names)}
        self.halved = {name: 0.5 if name in squared else 1.0 for name in names}
        self.log_variance = nn.Parameter(torch.zeros(len(names)))

    def forward(self, name: str, loss: Tensor, part: float) -> Tensor:
        """The weighed loss and its share of the regulariser. `loss`: this micro-batch's part of the mean of a term (and
        of what a teacher adds about its targets), times what its task counts for; `part`: the share of the term's
        targets it has, times the same."""
        s = self.log_variance[self.places[name]]
        return self.halved[name] * torch.exp(-s) * loss + part * s / 2
