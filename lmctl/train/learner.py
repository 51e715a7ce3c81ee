"""The trained module, which DDP wraps: network, objectives and losses. All go through one `forward`, so that DDP's
hooks see the whole forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lmctl.adversary.divergence import divergence
from lmctl.core.batch import Batch, Terms
from lmctl.core.shards import is_sharded
from lmctl.model.network import OVER_WORDS
from lmctl.objective.base import Metric, Objective, Prediction, added
from lmctl.parallel.strategy import Trainable
from lmctl.precision.base import Precision
from lmctl.train.distill_losses import DistillLosses, NoDistillation, TargetLoss
from lmctl.train.dropout import DropoutStream
from lmctl.train.losses import LOGITS_BYTES, Z_LOSS, chunks_of, weighed_losses, z_loss, zero_loss


@dataclass(frozen=True)
class Share:
    """Part of a micro-batch in its optimiser step: counts, weights and loss scale."""

    counts: Mapping[str, float]
    """Targets of the step by `<task>/<term>`, mean per worker (gradients are averaged over workers)."""
    factor: float = 1.0
    """Factor of the task's losses."""
    progress: float = 0.0
    """Share of the budget that is spent."""
    scale: float = 1.0
    """Loss scale (fp16)."""
    every_parameter: bool = False
    """Whether every parameter must get a gradient, zero if unused (for DDP and FSDP, where other workers may have used
    it)."""


@dataclass(frozen=True)
class Pass:
    """One forward pass of the network over a micro-batch."""

    batch: Batch
    weight: float = 1.0
    """Weight of its losses."""
    replays: bool = False
    """Whether it uses the dropout masks of the first pass."""
    fixed: bool = False
    """Stop-gradient: no backward pass through it."""
    entering: Callable[[], AbstractContextManager[Any]] = field(default=nullcontext)
    """Context of the network's forward pass."""


class Losses(NamedTuple):
    """Result of `Learner.forward`."""

    total: Tensor
    """The loss to call `backward` on."""
    passes: Sequence[Terms]
    """Unweighted losses of each pass by term; detached sums over targets."""
    disagreement: Terms
    """Divergence between the first two passes by term; detached sums over targets."""


class Learner(Trainable):
    """Network, objectives and their losses."""

    readers = ("logits", "task_losses", "metrics")

    def __init__(
        self,
        network: nn.Module,
        objectives: Mapping[str, Objective],
        precision: Precision,
        device: Any,
        balance: nn.Module | None = None,
        distillation: NoDistillation | None = None,
        z_loss: float = 0.0,
    ) -> None:
        """`balance`: learned loss weights (`lmctl/train/loss_balance.py`); None: fixed ones. `z_loss`: weight of
        `z_loss` beside each loss over the vocabulary; it is not reported."""
        super().__init__()
        self.z_loss = z_loss
        self.network: Any = network
        self.balance = balance
        self.distillation = distillation or NoDistillation()
        self.objectives, self.precision, self.device = dict(objectives), precision, device

    def forward(self, passes: Sequence[Pass], share: Share, agree: float = 0.0) -> Losses:
        """The loss of a micro-batch as its part of the step's loss, from one or more passes. `agree`: weight of the
        divergence between the first two. Without a pass: a loss of 0 with zero gradients for every parameter.

        Each term is divided by its count in the whole step, so that the sum over all micro-batches is the mean over the
        step's targets, however they were split.
        """
        parts = []
        if share.every_parameter or not passes:
            parts.append(zero_loss(p for p in self.parameters() if not is_sharded(p)))
        if not passes:
            return Losses(parts[0] * share.scale, [], {})
        dropout = DropoutStream(self.device, [one.replays for one in passes])
        predictions, distilled = [], []
        for number, one in enumerate(passes):
            with dropout.reading(number), torch.set_grad_enabled(torch.is_grad_enabled() and not one.fixed):
                found, extra = self._read(one, share.progress)
            predictions.append(found)
            distilled.append(extra)
        batch = passes[0].batch
        values: list[Terms] = [{} for _ in passes]
        apart: Terms = {}
        totals: list[Tensor] = []
        for term in predictions[0]:
            compared = _TermLosses(self, passes, predictions, distilled, dropout, term, agree)
            count = share.counts[f"{batch.task}/{term}"] or 1.0  # no targets in the whole step: an empty sum
            factor = share.factor * compared.objective.weight(term)
            weights = [weight * factor / count * share.scale for weight in compared.weights]
            with self.products():
                total, sums = weighed_losses(compared, weights, compared.hidden, compared.parameters, compared.chunks)
            if self.balance is not None:
                here = sum(one.weight for one in passes) * len(compared.labels[0])
                total = self.balance(f"{batch.task}/{term}", total, factor * here / count * share.scale)
            totals.append(total)
            for (place, name), value in zip(compared.names, sums.unbind(), strict=True):
                if name != Z_LOSS:
                    (apart if place is None else values[place])[name] = value
        for number, (one, extra) in enumerate(zip(passes, distilled, strict=True)):
            for name, (weight, distance) in extra.states.items():
                values[number][name] = distance.detach()
                count = share.counts[f"{batch.task}/{name}"] or 1.0
                totals.append(distance * (one.weight * weight * share.factor / count * share.scale))
        totals += parts
        return Losses(sum(totals[1:], totals[0]), values, apart)

    def _read(self, one: Pass, progress: float) -> tuple[dict[str, Prediction], DistillLosses]:
        """One forward pass: predictions, and the distillation losses on them."""
        with one.entering(), self.products(), self.distillation.recording():
            predictions = self.objectives[one.batch.task].predict(self.network, one.batch)
        states = self.distillation.recorded(one.batch)
        if not one.weight:
            return predictions, DistillLosses()
        return predictions, self.distillation.losses(one.batch, predictions, states, progress)

    def products(self) -> AbstractContextManager[Any]:
        """Context with the run's precision for matrix products (autocast, for half precision)."""
        return self.precision.products(self.device)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Number of targets (or positions, for feature losses) of `batch` by term."""
        return batch.counts() | self.distillation.counts(batch)

    def layers(self) -> list[list[nn.Parameter]]:
        """Parameters of the network by layer, from the embeddings up to the heads."""
        groups: list[list[nn.Parameter]] = self.network.layers()
        return groups

    def units(self) -> list[nn.Module]:
        units: list[nn.Module] = self.network.units()
        return units

    def stacks(self) -> dict[str, list[nn.Module]]:
        """The network's layers by stack, from the lowest to the highest; encoder and decoder are separate stacks."""
        stacks: dict[str, list[nn.Module]] = self.network.stacks()
        return stacks

    def logits(self, batch: Batch) -> dict[str, Tensor]:
        """By term, all logits [N, C] that the losses of `batch` need, in the current precision."""
        predictions = self.objectives[batch.task].predict(self.network, batch)
        return {term: self.network.head(one.head, one.hidden) for term, one in predictions.items()}

    def task_losses(self, batch: Batch) -> Terms:
        """The objective's own loss of `batch` by term, summed, in the current precision."""
        objective = self.objectives[batch.task]
        return {
            term: objective.loss(term, self.network.head(one.head, one.hidden), one.labels)
            for term, one in objective.predict(self.network, batch).items()
        }

    @torch.no_grad()
    def metrics(self, batch: Batch) -> dict[str, dict[str, Metric]]:
        """Metrics of a validation batch by term and name."""
        objective, found = self.objectives[batch.task], {}
        with self.products():
            for term, one in objective.predict(self.network, batch).items():
                parts = [
                    objective.metrics(term, self.network.head(one.head, one.hidden[rows]), one.labels[rows])
                    for rows in self.chunks(one)
                ]
                found[term] = {name: added([part[name] for part in parts]) for name in parts[0]}
        return found

    def chunks(self, prediction: Prediction, passes: int = 1) -> list[slice]:
        """Split the targets of a prediction into chunks, so that a chunk's logits fit into memory."""
        most = self.distillation.chunk_bytes or LOGITS_BYTES // passes
        # Not `head_width`, which leaves out the rows that only pad the vocabulary.
        width = max(parameter.shape[0] for parameter in self.network.head_parameters(prediction.head))
        return chunks_of(len(prediction.labels), width, most)


class _TermLosses:
    """All losses on the logits of one term: the objective's and a teacher's for every pass, and the divergence between
    two passes."""

    def __init__(
        self,
        learner: Learner,
        passes: Sequence[Pass],
        predictions: Sequence[Mapping[str, Prediction]],
        distilled: Sequence[DistillLosses],
        dropout: DropoutStream,
        term: str,
        agree: float,
    ) -> None:
        self.learner, self.dropout, self.term = learner, dropout, term
        self.objective = learner.objectives[passes[0].batch.task]
        self.predictions = [one[term] for one in predictions]
        self.head = self.predictions[0].head
        self.hidden = [one.hidden for one in self.predictions]
        self.labels = [one.labels for one in self.predictions]
        self.parameters = learner.network.head_parameters(self.head)
        self.chunks = learner.chunks(self.predictions[0], len(passes))
        self.names: list[tuple[int | None, str]] = []
        """Pass number (None: between two passes) and name of every loss."""
        self.weights: list[float] = []
        self.taught: list[Mapping[str, tuple[float, TargetLoss]]] = [one.logits.get(term, {}) for one in distilled]
        self.passes = passes
        self.z_loss = learner.z_loss if self.head in OVER_WORDS else 0.0
        for number, (one, extra) in enumerate(zip(passes, distilled, strict=True)):
            if one.weight:
                self._name(number, term, one.weight * extra.task_weight)
                if self.z_loss:
                    self._name(number, Z_LOSS, one.weight * extra.task_weight * self.z_loss)
                for name, (weight, _) in self.taught[number].items():
                    self._name(number, name, one.weight * weight)
        self.agree = agree
        if agree:
            self._name(None, term, agree)

    def _name(self, number: int | None, name: str, weight: float) -> None:
        self.names.append((number, name))
        self.weights.append(weight)

    def __call__(self, hidden: Sequence[Tensor], rows: slice) -> list[Tensor]:
        """The losses of the targets `rows`, from the hidden states [n, H] of each pass."""
        losses, logits = [], []
        for number, states in enumerate(hidden):
            learns = torch.is_grad_enabled() and not self.passes[number].fixed
            with self.dropout.answering(number), torch.set_grad_enabled(learns):
                logits.append(self.learner.network.head(self.head, states))
        for number, values in enumerate(logits):
            if not self.passes[number].weight:
                continue
            losses.append(self.objective.loss(self.term, values, self.labels[number][rows]))
            if self.z_loss:
                losses.append(z_loss(values))
            for _, distill_loss in self.taught[number].values():
                with self.learner.products():  # again, because the teacher may have changed global TF32 settings
                    losses.append(distill_loss(values, rows))
        if self.agree:
            one, other = self.labels[:2]
            mine = one[rows]
            losses.append(divergence(logits[0], logits[1], mine, mine if one is other else other[rows]))
        return losses
