"""The module that is trained: network and objective together, so that DDP's hooks see the whole forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lmctl.core.types import Batch, Objective, Precision, Terms


class Learner(nn.Module):
    """`forward(batch)` gives the summed terms of one micro-batch, its products in the run's precision."""

    def __init__(self, network: nn.Module, objective: Objective, precision: Precision, device: Any) -> None:
        super().__init__()
        self.network = network
        self.objective, self.precision, self.device = objective, precision, device

    def forward(self, batch: Batch) -> Terms:
        with self.precision.products(self.device):
            return self.objective.terms(self.network, batch)  # type: ignore[arg-type]

    def scores(self, batch: Batch) -> Terms:
        """Losses and scores of a validation batch."""
        with self.precision.products(self.device):
            return self.objective.scores(self.network, batch)  # type: ignore[arg-type]


def total_loss(terms: Terms, counts: Mapping[str, float], world: int) -> Tensor:
    """The loss of a micro-batch: each term over its *global* count of targets, so that the sum over all
    micro-batches and processes is the mean over the whole window however it was split. DDP divides the gradients
    by the number of processes; `world` undoes that."""
    # A term without targets anywhere is an empty sum, 0 with a gradient of 0, whatever it is divided by.
    parts = [value * (world / max(counts[name], 1.0)) for name, value in terms.items()]
    return sum(parts[1:], parts[0])
