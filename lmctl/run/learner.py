"""The module that is trained: network and objectives together, so that DDP's hooks see the whole forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lmctl.core.types import Batch, Network, Objective, Precision, Terms


class Watched:
    """A network that keeps the logits it gives."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.logits: list[Tensor] = []

    def encode(self, inputs: Mapping[str, Tensor], read: Tensor | None) -> Tensor:
        return self.network.encode(inputs, read)

    def head(self, name: str, hidden: Tensor) -> Tensor:
        self.logits.append(self.network.head(name, hidden))
        return self.logits[-1]


class Learner(nn.Module):
    """`forward(batch)` gives the summed terms of one micro-batch, its products in the run's precision."""

    def __init__(
        self,
        network: nn.Module,
        objectives: Mapping[str, Objective],
        precision: Precision,
        device: Any,
        balance: nn.Module,
    ) -> None:
        super().__init__()
        self.network, self.balance = network, balance
        self.objectives, self.precision, self.device = dict(objectives), precision, device
        self._watched: Watched | None = None

    def forward(self, batch: Batch | None) -> Terms:
        """The terms of `batch`, by name; where a process has none at all, `nothing`."""
        if batch is None:
            return {"none": self.nothing()}
        with self.precision.products(self.device):
            return self.objectives[batch.task].terms(self._watched or self.network, batch)  # type: ignore[arg-type]

    @contextmanager
    def watching(self) -> Iterator[list[Tensor]]:
        """Inside it, `forward` also puts the logits of every head it calls into this list."""
        self._watched = Watched(self.network)  # type: ignore[arg-type]
        try:
            yield self._watched.logits
        finally:
            self._watched = None

    def nothing(self) -> Tensor:
        """A loss of 0 that every parameter takes part in, with a gradient of 0: DDP waits for all of them in the last
        backward pass of a step, whichever task that belongs to."""
        return Nothing.apply(*(p for p in self.parameters() if p.requires_grad))

    def scores(self, batch: Batch) -> Terms:
        """Losses and scores of a validation batch."""
        with self.precision.products(self.device):
            return self.objectives[batch.task].scores(self.network, batch)  # type: ignore[arg-type]


class Nothing(torch.autograd.Function):
    """Zero, with a gradient of zero for every parameter; never looks at their values, which may not be there."""

    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> Tensor:
        ctx.like = [(p.shape, p.dtype, p.device) for p in parameters]
        return torch.zeros((), device=parameters[0].device)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return tuple(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.like)


class Fixed(nn.Module):
    """Losses count for what the mix says."""

    def forward(self, name: str, loss: Tensor, part: float) -> Tensor:
        """`loss`: this micro-batch's part of the mean of a term; `part`: the share of the term's targets it has."""
        return loss


class Uncertainty(nn.Module):
    """Losses weighed by their learned noise (Kendall et al. 2018, section 3.2): exp(-s) L + s / 2 for every term,
    where s = log sigma^2 is learned with the network."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.places = {name: place for place, name in enumerate(names)}
        self.log_variance = nn.Parameter(torch.zeros(len(names)))

    def forward(self, name: str, loss: Tensor, part: float) -> Tensor:
        """As `Fixed.forward`; the regulariser is shared out over the micro-batches like the targets."""
        s = self.log_variance[self.places[name]]
        return torch.exp(-s) * loss + part * s / 2


def total_loss(
    batch: Batch,
    terms: Terms,
    counts: Mapping[str, float],
    world: int,
    factor: float,
    balance: nn.Module,
    on_top: bool = False,
) -> Tensor:
    """The loss of a micro-batch: each term over its *global* count of targets, so that the sum over all
    micro-batches and processes is the mean over the whole window however it was split. DDP divides the gradients
    by the number of processes; `world` undoes that. `counts` are those of the window, by `<task>/<term>`. Terms that
    come `on_top` of the losses have the losses' factors, but no second share of what keeps these in balance."""
    here = batch.counts()
    # A term without targets anywhere is an empty sum, 0 with a gradient of 0, whatever it is divided by.
    parts = []
    for term, value in terms.items():
        name = f"{batch.task}/{term}"
        count = max(counts[name], 1.0)
        part = 0.0 if on_top else world * here[term] / count
        parts.append(balance(name, value * (factor * world / count), part))
    return sum(parts[1:], parts[0])
