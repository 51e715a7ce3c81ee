"""The module that is trained: network and objectives together, so that DDP's hooks see the whole forward pass."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lmctl.core.batch import Batch, Terms
from lmctl.core.tasks import Objective
from lmctl.precision.base import Precision
from lmctl.run.nothing import nothing
from lmctl.run.reading import Watched
from lmctl.run.teaching import Untaught


class Learner(nn.Module):
    """`forward(batch)` gives the summed terms of one micro-batch, its products in the run's precision."""

    def __init__(
        self,
        network: nn.Module,
        objectives: Mapping[str, Objective],
        precision: Precision,
        device: Any,
        balance: nn.Module,
        teaching: Untaught | None = None,
    ) -> None:
        super().__init__()
        self.network, self.balance = network, balance
        self.teaching = teaching or Untaught()
        self.objectives, self.precision, self.device = dict(objectives), precision, device
        self._watched: Watched | None = None

    def forward(self, batch: Batch | None) -> Terms:
        """The terms of `batch`, by name; where a process has none at all, `nothing`."""
        if batch is None:
            return {"none": self.nothing()}
        return self.teaching.terms(self, self._watched or self.network, batch)  # type: ignore[arg-type]

    def products(self) -> AbstractContextManager[Any]:
        """Inside it, matrix products are those of the run's precision."""
        return self.precision.products(self.device)

    def counts(self, batch: Batch) -> dict[str, int]:
        """What the terms of `batch` are summed over: numbers of targets, or of whatever else a lesson looks at."""
        return batch.counts() | self.teaching.counts(batch)

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
        return nothing(self.parameters())

    def layers(self) -> list[list[nn.Parameter]]:
        """The network's parameters, layer by layer."""
        return self.network.layers()  # type: ignore[operator]

    def scores(self, batch: Batch) -> Terms:
        """Losses and scores of a validation batch."""
        with self.products():
            return self.objectives[batch.task].scores(self.network, batch)  # type: ignore[arg-type]


class Fixed(nn.Module):
    """Losses count for what the mix says."""

    def forward(self, name: str, loss: Tensor, part: float) -> Tensor:
        """`loss`: this micro-batch's part of the mean of a term, times what its task counts for; `part`: the share of
        the term's targets it has, times the same."""
        return loss


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
        """As `Fixed.forward`; the regulariser is shared out over the micro-batches as `part` says."""
        if name not in self.places:  # a term of a lesson that is about no targets
            return loss
        s = self.log_variance[self.places[name]]
        return self.halved[name] * torch.exp(-s) * loss + part * s / 2


def total_loss(
    learner: Learner, batch: Batch, terms: Terms, counts: Mapping[str, float], world: int, factor: float, on_top: bool
) -> Tensor:
    """The loss of a micro-batch: each term over its *global* count of targets, so that the sum over all
    micro-batches and processes is the mean over the whole window however it was split. DDP divides the gradients
    by the number of processes; `world` undoes that. `counts` are those of the window, by `<task>/<term>`. Terms that
    come `on_top` of the losses have the losses' factors, but no second share of what keeps these in balance, and no
    part in the lesson's weights."""
    here, weights = learner.counts(batch), {} if on_top else learner.teaching.weights(batch)
    # A term without targets anywhere is an empty sum, 0 with a gradient of 0, whatever it is divided by.
    parts = []
    for term, value in terms.items():
        count, owner = max(counts[f"{batch.task}/{term}"], 1.0), learner.teaching.owner(batch.task, term)
        part = 0.0 if on_top or owner != term else factor * world * here[term] / count
        weighed = value * (weights.get(term, 1.0) * factor * world / count)
        parts.append(learner.balance(f"{batch.task}/{owner}", weighed, part))
    return sum(parts[1:], parts[0])
