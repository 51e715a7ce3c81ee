"""A micro-batch in the hands of an adversary: the `Pass` of lmctl/core/passes.py at work.

Whatever the adversary does, gradients cross the network once per optimiser step: DDP decides in the forward pass, so
every one but the last of the last micro-batch, and its backward pass, runs unsynchronised. Gradients by a shift alone
do not go through DDP at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lmctl.core.batch import Batch, Terms
from lmctl.core.draws import Draws
from lmctl.core.errors import ConfigError, LmctlError
from lmctl.core.passes import Adversary, Outcome, Seen
from lmctl.core.sources import Augment, Rewrite
from lmctl.run.deterministic import deterministic
from lmctl.run.embeddings import Embeddings, random_start, real_positions, row_generators
from lmctl.run.learner import total_loss
from lmctl.run.ledger import Ledger
from lmctl.run.noisy import Rewriting

if TYPE_CHECKING:
    from lmctl.run.runner import Runner


class Passes:
    """What the micro-batches of a run have in common."""

    def __init__(self, runner: Runner) -> None:
        self.runner, self.device = runner, runner.processes.device
        if runner.plan.compile:  # a compiled network sees no hooks that come later
            _ = self.embeddings
        # Any augmentation that the adversary names is made ready, or refused, before there is work.
        named = [value for value in vars(runner.plan.adversary).values() if isinstance(value, Augment)]
        self.rewrites = {id(augment): self._rewrite(augment) for augment in named}

    @cached_property
    def embeddings(self) -> Embeddings:
        """Those of the network, ready to be shifted."""
        return Embeddings(self.runner.network.word_embeddings())

    def _rewrite(self, augment: Augment) -> Rewrite:
        prepared = self.runner.prepared
        rewrite = augment.rewriter(prepared.tokenizer, prepared.vocabulary)
        if rewrite is None:
            raise ConfigError(
                f"adversary.augment: {type(augment).__name__} changes no text, so there is nothing to hold out against",
                "adversary.augment=char_noise, or adversary=none",
            )
        return rewrite

    def on_rows(self, task: str) -> bool:
        """Whether a task asks about whole rows."""
        return self.runner.plan.mix.tasks[task].objective.label_kind is not None

    def over(self, batch: Batch, part: Part) -> MicroBatch:
        """The passes over one micro-batch in the host's memory."""
        return MicroBatch(self, batch, part)


@dataclass(frozen=True)
class Part:
    """What a micro-batch is in its step."""

    counts: Mapping[str, float]
    """Targets of the step, by `<task>/<term>`."""
    factor: float
    """What the losses of its task count for."""
    window: int
    last: bool
    """No other follows in this step."""
    touch_all: bool
    """Every parameter must take part in its last backward pass."""


@dataclass(frozen=True)
class MicroBatch:
    """One micro-batch, as a `Pass`."""

    passes: Passes
    origin: Batch
    """In the host's memory."""
    part: Part
    ledger: Ledger = field(default_factory=Ledger)

    @cached_property
    def batch(self) -> Batch:
        return self.origin.to(self.passes.device)

    @cached_property
    def real(self) -> Tensor:
        """bool [R, L], in the host's memory: what is not padding."""
        return real_positions(self.origin, self.passes.on_rows(self.origin.task))

    @cached_property
    def _shiftable(self) -> Tensor:
        return self.real[..., None].to(self.passes.device)

    def driven(self, adversary: Adversary) -> Outcome:
        """What `adversary` makes of it."""
        outcome = adversary.drive(self)
        if not self.ledger.ended:
            raise LmctlError(f"adversary: {type(adversary).__name__} made no last pass, so no gradients were exchanged")
        return outcome

    def zeros(self) -> Tensor:
        shape = (*self.real.shape, self.passes.embeddings.width)
        return torch.zeros(shape, device=self.passes.device, requires_grad=True)

    def start(self) -> Tensor:
        return random_start(self.real, self._generators("start"), self.passes.embeddings.width, self.passes.device)

    def forward(
        self, shift: Tensor | None = None, *, last: bool = False, fresh: bool = False, logits: bool = False
    ) -> Seen:
        if self.ledger.ended:
            raise LmctlError("adversary: another pass was asked for after the last one")
        self.ledger.ended = last
        with self._exchange():
            return self._seen(self.passes.runner.wrapped, shift, fresh, logits)

    def loss(self, terms: Terms) -> Tensor:
        return self._total(terms, on_top=False)

    def penalty(self, terms: Terms) -> Tensor:
        return self._total(terms, on_top=True)

    def backward(self, loss: Tensor) -> None:
        runner = self.passes.runner
        if self.part.touch_all and self.ledger.ended:
            loss = loss + runner.learner.nothing()
        with self._exchange(), deterministic(self.passes.device):
            runner.scaler.scale(loss).backward()

    def gradient(self, shift: Tensor, loss: Callable[[Seen], Tensor], logits: bool = False) -> Tensor:
        runner, shift = self.passes.runner, shift.detach().requires_grad_()
        seen = self._seen(runner.learner, shift, fresh=False, logits=logits)
        scaled = runner.scaler.scale(loss(seen))
        with deterministic(self.passes.device):
            return torch.autograd.grad(scaled, shift)[0]

    def noisy(self, augment: Augment) -> MicroBatch:
        plan, whole_rows = self.passes.runner.plan, self.passes.on_rows(self.origin.task)
        vocabulary, rewrite = self.passes.runner.prepared.vocabulary, self.passes.rewrites[id(augment)]
        causal = plan.model.family == "decoder"
        rewriting = Rewriting(rewrite, vocabulary, plan.batch.seq_len, whole_rows, causal)
        changed = rewriting(self.origin, self.real, self._generators("noise"))
        return MicroBatch(self.passes, changed, self.part, self.ledger)

    def _generators(self, purpose: str) -> list[np.random.Generator]:
        draws = Draws(self.passes.runner.plan.seed, f"{self.origin.task}/adversary/{purpose}")
        return row_generators(self.origin, self.real, draws, self.part.window)

    def _exchange(self) -> AbstractContextManager[Any]:
        """Gradients stay in this process unless it is the last pass of the last micro-batch."""
        runner, ends = self.passes.runner, self.part.last and self.ledger.ended
        return nullcontext() if ends else runner.processes.unsynchronised(runner.wrapped)

    def _seen(self, module: nn.Module, shift: Tensor | None, fresh: bool, logits: bool) -> Seen:
        learner, network, kept = self.passes.runner.learner, self.passes.runner.network, []
        shifted = nullcontext() if shift is None else self.passes.embeddings.shifted(shift * self._shiftable)
        with self.ledger.another(network, self.passes.device, fresh), shifted:
            if not logits:
                return Seen(module(self.batch), {})
            with learner.watching() as kept:
                terms = module(self.batch)
        if [len(values) for values in kept] != [len(target.labels) for target in self.batch.targets.values()]:
            objective = type(learner.objectives[self.batch.task]).__name__
            raise LmctlError(f"adversary: {objective} does not call one head for each of its terms, in their order")
        return Seen(terms, dict(zip(self.batch.targets, kept, strict=True)))

    def _total(self, terms: Terms, on_top: bool) -> Tensor:
        workers, learner = self.passes.runner.exchange.workers, self.passes.runner.learner
        return total_loss(learner, self.batch, terms, self.part.counts, workers, self.part.factor, on_top)
