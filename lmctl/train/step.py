"""One optimiser step: gradient accumulation over micro-batches, all-reduce, unscale, clip, update.

for batch in micro-batches:               gradient accumulation; gradients are all-reduced in the last pass only
    adversary.forward_backward(batch)     one call of the learner for a run without an adversary
        learner(passes).total.backward()
strategy.reduce_gradients()               unless the backward pass has averaged them already
unscale, clip, optimizer.step()
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from torch import Tensor

from lmctl.adversary.base import Adversary, LossReport, View
from lmctl.average.weights import CurrentWeights
from lmctl.core.batch import Batch, Terms
from lmctl.core.errors import LmctlError
from lmctl.mix.stream import Window
from lmctl.parallel.deterministic import deterministic
from lmctl.parallel.strategy import Strategy
from lmctl.precision.scaling import LossScaler
from lmctl.train.dropout import dropout_state, set_dropout_state
from lmctl.train.learner import Learner, Losses, Pass, Share
from lmctl.train.perturbations import Perturbations


@dataclass(frozen=True)
class StepContext:
    """Position of a step in the run."""

    step: int
    """Steps taken before."""
    window: int
    """Steps before, with those that fp16 skipped."""
    progress: float
    """Share of the budget that is spent."""
    lr: float
    """Learning rate of the step, before factors of parameter groups."""


class StepSums:
    """Sums and counts by name over the micro-batches of a step; tensors stay on the device."""

    def __init__(self) -> None:
        self.totals: dict[str, Any] = {}
        self.counts: dict[str, int] = {}

    def add(self, task: str, terms: Terms, counts: Mapping[str, int]) -> None:
        for term, value in terms.items():
            name = f"{task}/{term}"
            self.totals[name] = self.totals.get(name, 0.0) + value.double()
            self.counts[name] = self.counts.get(name, 0) + counts[term]


@dataclass(frozen=True)
class Accumulated:
    """What the micro-batches of a step have left besides gradients. Tensors stay on the device."""

    losses: StepSums
    """Losses of this process by `<task>/<term>`."""
    adversarial: StepSums
    """Adversarial losses of this process."""
    micro_batches: int
    passes: int


@dataclass(frozen=True)
class StepResult(Accumulated):
    """Result of one optimiser step, taken or skipped. Tensors stay on the device; reading them synchronises with it."""

    taken: bool
    grad_norm: Tensor


@dataclass(frozen=True)
class StepReport(StepResult):
    """Result of a step, with its position in the run."""

    step: int
    counts: dict[str, float]
    """Number of targets by `<task>/<term>`, over all processes."""
    tokens: dict[str, int]
    """Number of tokens by task, without padding, over all processes."""
    lr: float
    cosines: dict[str, float]
    """Cosines of the tasks' gradients by `<task>|<task>`, over all processes, in steps that measure them."""


class Guard(Protocol):
    """May refuse (`decides`) a step whose gradients are finite, and makes the host wait for them; after a refusal the
    run may go on (`skips`); see `StepGuard`."""

    @property
    def decides(self) -> bool: ...

    @property
    def skips(self) -> bool: ...

    def allows(self, norm: Tensor, losses: StepSums, counts: Mapping[str, float]) -> bool: ...


class TrainStep:
    """Gradient accumulation over micro-batches and one optimiser update."""

    def __init__(
        self,
        learner: Learner,
        optimizer: torch.optim.Optimizer,
        scaler: LossScaler,
        strategy: Strategy,
        adversary: Adversary,
        perturbations: Perturbations,
        clip_norm: float | None,
        guard: Guard,
        average: CurrentWeights,
        idle: Batch,
    ) -> None:
        """`strategy` has prepared `learner`. `idle`: a row that a worker without rows of its own takes part with, where
        others cannot go on alone; it counts for nothing."""
        self.learner, self.optimizer, self.scaler, self.strategy = learner, optimizer, scaler, strategy
        self.adversary, self.perturbations, self.clip_norm, self.guard = adversary, perturbations, clip_norm, guard
        self.average, self.idle = average, idle
        self.several_tasks = len(learner.objectives) > 1

    def __call__(self, window: Window, counts: Mapping[str, float], moment: StepContext) -> StepResult:
        """Both halves of a step."""
        return self.update(self.accumulate(window, counts, moment), counts, moment)

    def accumulate(self, window: Window, counts: Mapping[str, float], moment: StepContext) -> Accumulated:
        """Forward and backward passes. `window`: this worker's micro-batches; `counts`: targets of the step by
        `<task>/<term>`, over all workers."""
        losses, adversarial, micro_batches, passes = StepSums(), StepSums(), 0, 0
        scale = self.scaler.value
        mean_counts, own = self.strategy.mean_counts(counts), len(window.batches)
        turns = self.strategy.turns(own)
        for number, batch in enumerate([*window.batches, *[self.idle] * (turns - own)], start=1):
            factor = window.factors[batch.task] if number <= own else 0.0
            share = Share(mean_counts, factor, moment.progress, scale)
            micro = MicroBatch(self, batch, share, moment.window, number == turns)
            outcome = self.adversary.forward_backward(micro)
            micro.check_ended()
            if number > own:
                continue
            micro_batches, passes = micro_batches + 1, passes + micro.passes
            sizes = self.learner.counts(batch)
            shown = {t: v for t, v in outcome.losses.items() if not (batch.generated and t in batch.targets)}
            losses.add(batch.task, shown, sizes)
            adversarial.add(batch.task, outcome.adversarial, sizes)
        if not turns:  # fewer rows than workers: zero gradients, because the other workers wait for them
            self.strategy.module([], Share(mean_counts, scale=scale)).total.backward()
        return Accumulated(losses, adversarial, micro_batches, passes)

    def update(self, done: Accumulated, counts: Mapping[str, float], moment: StepContext) -> StepResult:
        """Average the gradients over all workers, clip them, and step the optimiser unless they are not finite or the
        guard refuses."""
        for group in self.optimizer.param_groups:
            group["lr"] = moment.lr * group.get("lr_factor", 1.0)
        skips = self.guard.skips and not self.strategy.every_pass  # else it has been sent, and `after_step` knows
        unsent = copy.deepcopy(self.strategy.state_dict()) if skips else {}
        self.strategy.reduce_gradients(self.scaler.value, moment.step)
        self.scaler.unscale(self.optimizer)
        waits = self.guard.decides or not self.scaler.decides_on_device(self.optimizer)
        norm = self.strategy.clip_grad_norm(self.clip_norm, waits)
        if not self.guard.decides or self.guard.allows(norm, done.losses, counts):
            taken = self.scaler.step(self.optimizer, norm)
        else:
            taken = self.scaler.pass_over(self.optimizer, norm)
            if unsent:  # without the gradients that were refused
                self.strategy.load_state_dict(unsent)
        if taken:
            self.average.follow(moment.progress)
        return StepResult(**vars(done), taken=taken, grad_norm=norm)

    def zero_grad(self) -> None:
        """Free the gradients; not at the end of the step, so that a non-finite one can still be found."""
        self.optimizer.zero_grad(set_to_none=True)


class MicroBatch:
    """One micro-batch with its forward and backward passes: the `AttackedBatch` of an adversary."""

    def __init__(self, step: TrainStep, origin: Batch, share: Share, window: int, last: bool) -> None:
        """`origin` in host memory; `last`: this is the worker's last micro-batch of the step."""
        self.step, self.origin, self.share, self.window, self.last = step, origin, share, window, last
        self.passes = 0
        """Number of forward and backward passes so far."""
        self.read = False
        """Whether the network has read it."""
        self.ended = False
        self._dropout: Tensor | None = None
        self._before: Any = None
        """Recurrent state before the first pass."""
        self._after: Any = None
        """Recurrent state after the first pass, from which the next micro-batch continues."""

    @cached_property
    def batch(self) -> Batch:
        return self.origin.to(self.step.learner.device)

    @cached_property
    def _shiftable(self) -> Tensor:
        return self.step.perturbations.real(self.origin)[..., None].to(self.step.learner.device)

    def zeros(self) -> Tensor:
        return self.step.perturbations.zeros(self.origin)

    def random_shift(self) -> Tensor:
        return self.step.perturbations.random_shift(self.origin, self.window)

    def forward_backward(self, *views: View, agree: float = 0.0, last: bool = False) -> LossReport:
        if self.ended:
            raise LmctlError("adversary: another pass was asked for after the last one")
        self.ended = last
        reduces = self.step.strategy.every_pass or (last and self.last)
        share = replace(self.share, every_parameter=self.step.several_tasks and reduces)
        with self.step.strategy.accumulate(last=last and self.last):
            losses: Losses = self.step.strategy.module(self._passes(views, last), share, agree)
            with deterministic(self.step.learner.device):
                losses.total.backward()
        return LossReport(losses.passes, losses.disagreement)

    def gradient(self, shift: Tensor, *views: View, agree: float = 0.0) -> Tensor:
        total = self.step.learner(self._passes(views, last=False), self.share, agree).total
        with deterministic(self.step.learner.device):
            return torch.autograd.grad(total, shift)[0]

    def check_ended(self) -> None:
        """LmctlError unless there was a last pass."""
        if not self.ended:
            adversary = type(self.step.adversary).__name__
            raise LmctlError(f"adversary: {adversary} made no last pass, so no gradients were exchanged")

    def _passes(self, views: Sequence[View], last: bool) -> list[Pass]:
        """The passes of one call of the learner, the `last` one or not."""
        if self._dropout is None:
            if not last:  # a later call will replay the dropout masks
                self._dropout = dropout_state(self.step.learner.device)
        elif not views[0].fresh:
            set_dropout_state(self._dropout, self.step.learner.device)
        return [
            Pass(self._rows(view), view.weight, number > 0 and not view.fresh, view.fixed, partial(self._read, view))
            for number, view in enumerate(views)
        ]

    def _rows(self, view: View) -> Batch:
        if view.augment is None:
            return self.batch
        changed = self.step.perturbations.rewritten(self.origin, view.augment, self.window)
        return changed.to(self.step.learner.device)

    @contextmanager
    def _read(self, view: View) -> Iterator[None]:
        """Context of the network's forward pass: shifted embeddings, and for recurrent networks the state before the
        first pass, replaced afterwards by the state after the first pass."""
        network, first, self.read = self.step.learner.network, not self.read, True
        self.passes += not view.fixed
        if first:
            self._before = network.memory()
        else:
            network.recall(self._before)
        with self._shifted(view):
            yield
        if first:
            self._after = network.memory()
        network.recall(self._after)

    def _shifted(self, view: View) -> AbstractContextManager[Any]:
        if view.shift is None:
            return nullcontext()
        return self.step.perturbations.embeddings.shifted(view.shift * self._shiftable)
