"""One optimiser step without numbers: the run's own network, objectives, precision and optimiser work on tensors that
have shapes, dtypes and a device, and no contents; `Live` counts what would be alive.

Where a step takes several micro-batches (or DDP keeps its buckets), gradients are there from the beginning, as they are
from the second micro-batch on. Validation keeps nothing for a backward pass and is smaller than a step. The proof that
a precision gives of itself on the first rows is rehearsed as well: with small micro-batches it can be the larger one.

Two things differ from a real step. Where all rows are full and of one document, transformers finds out by looking at
values that a decoder needs no mask; on paper it makes one, and the attention keeps one tensor more per layer. And a
precision that multiplies by a library of its own may want to see contents (see `rehearse`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lmctl.core.errors import LmctlError
from lmctl.core.types import Precision
from lmctl.cost.asked import says
from lmctl.cost.legal import Checked, build
from lmctl.cost.live import GRADIENTS, ROWS, STATES, WEIGHTS, Live, Peak
from lmctl.cost.rows import Sample
from lmctl.precision.fp32 import Fp32
from lmctl.run.learner import Fixed, Learner, Uncertainty
from lmctl.run.proof import ROWS as PROOF_ROWS
from lmctl.run.reading import Watched

ADAM_STATES = 2
"""Values per parameter, in float32, where an optimiser's step cannot be rehearsed."""


@dataclass(frozen=True)
class Rehearsal:
    """What was seen."""

    peak: Peak
    most: dict[str, int]
    """The most bytes that each kind of tensor had at any time of the step."""
    proof: bool
    """Whether the peak is in the precision's proof, before the first step."""
    remarks: tuple[str, ...] = ()
    """What could not be rehearsed, and what was taken instead."""
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)
    """Of the learner that learn, by name, as the precision keeps them; tied ones once. Without contents."""


def rehearse(run: Checked, samples: Mapping[str, Sample], checkpointing: bool) -> Rehearsal:
    """A step of `run`. A precision whose products do not work without contents is rehearsed in fp32, and that is said.
    ConfigError if the network refuses `checkpointing`."""
    precision = run.plan.precision
    try:
        return _Stage(run, precision).play(samples, checkpointing)
    except LmctlError:
        raise
    except Exception as error:
        if isinstance(precision, Fp32):
            raise
        rehearsal = _Stage(run, Fp32()).play(samples, checkpointing)
        why = f"{type(precision).__name__} is counted as fp32: {_first(error)}"
        return replace(rehearsal, remarks=(*rehearsal.remarks, why))


class _Stage:
    """One rehearsal."""

    def __init__(self, run: Checked, precision: Precision) -> None:
        self.run, self.plan, self.device, self.precision = run, run.plan, run.device, precision
        self.live = Live(_vocabulary(run))
        self.remarks: list[str] = []
        self.learner: Any = None

    def play(self, samples: Mapping[str, Sample], checkpointing: bool) -> Rehearsal:
        # Modes are asked from the inside out: `live` sees every operation first, and its result has no contents.
        with FakeTensorMode(allow_non_fake_inputs=True), self.live:
            with self.live.born(WEIGHTS), torch.device(self.device):
                self.learner = self._learner(samples, checkpointing)
            before = self._proof(next(iter(samples.values())))
            self.live.restart()
            self._step(samples)
        step = self.live.peak
        named = {name: p for name, p in self.learner.named_parameters() if p.requires_grad}
        proof = before.total > step.total
        return Rehearsal(before if proof else step, self.live.most, proof, tuple(self.remarks), named)

    def _learner(self, samples: Mapping[str, Sample], checkpointing: bool) -> Learner:
        network = build(self.plan, self.run.known, checkpointing)
        if (convert := says(self.precision, "convert")) is not None:
            convert(network, self.device)
        tasks = self.plan.mix.tasks
        terms = [f"{name}/{term}" for name, sample in samples.items() for term in sample.batch.targets]
        balance = Uncertainty(terms) if self.plan.mix.balance == "uncertainty" else Fixed()
        objectives = {name: task.objective for name, task in tasks.items()}
        learner = Learner(network, objectives, self.precision, self.device, balance)
        self.live.follow(learner.parameters())
        return learner.train()

    def _proof(self, sample: Sample) -> Peak:
        """What `run/proof.py` does before the first step: the first rows, plainly and in the run's precision."""
        learner, batch = self.learner.eval(), sample.shaped(self._tensor, min(PROOF_ROWS, self.plan.batch.rows))
        objective, logits = learner.objectives[batch.task], []
        with torch.no_grad():
            for mode in (Fp32().products(self.device), self.precision.products(self.device)):
                with mode:
                    watched = Watched(learner.network)
                    objective.terms(watched, batch)
                    logits.append(torch.cat([value.float().reshape(-1) for value in watched.logits]))
            logits.append((logits[1] - logits[0]).norm())
        learner.train()
        return self.live.peak

    def _step(self, samples: Mapping[str, Sample]) -> None:
        learner, optimizer = self.learner, self._states()
        several = len(samples) > 1
        micros = sum(-(-round(s.rows_per_step / self.run.world) // s.rows) for s in samples.values())
        if micros == 1 and self.run.world == 1:
            for parameter in learner.parameters():
                parameter.grad = None
        for sample in samples.values():
            with self.live.born(ROWS):
                batch = sample.shaped(self._tensor)
            with self.live.keeping():
                loss = sum(learner(batch, touch_all=several).values())
                for term in batch.targets:
                    loss = learner.balance(f"{batch.task}/{term}", loss, 1.0)
            loss.backward()
            del loss, batch
        del optimizer

    def _states(self) -> torch.optim.Optimizer | None:
        """The optimiser after a step, its states made, gradients still there."""
        with self.live.born(GRADIENTS):
            for parameter in self.learner.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.empty_like(parameter)
        own = says(self.precision, "optimiser")
        try:
            with self.live.born(STATES):
                optimizer = (
                    self.plan.optim.optimiser(self.learner, self.device)
                    if own is None
                    else own(self.plan.optim, self.learner, self.device, self.plan.seed)
                )
                optimizer.step()
            return optimizer
        except Exception as error:
            self.remarks.append(f"optimiser states are counted as those of AdamW in fp32: {_first(error)}")
            with self.live.born(STATES):
                self.learner._states = [
                    torch.empty(ADAM_STATES, *p.shape, device=self.device)
                    for p in self.learner.parameters()
                    if p.requires_grad
                ]
            return None

    def _tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)


def _vocabulary(run: Checked) -> int:
    """Width of the vocabulary's logits: its size, or that up to which the model rounds it."""
    size = run.known.vocabulary.size
    tables = (module.num_embeddings for module in run.outline.modules() if isinstance(module, nn.Embedding))
    return min((rows for rows in tables if rows >= size), default=size)


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
