"""The loop: one window of rows in, one optimiser step out.

    for window of micro-batches:            mix/stream.py, collated ahead in a thread
        targets = global count per term     one sum over the processes, on the host
        for micro in window:                gradients cross the network on the last one only
            terms = learner(micro)          objective/ and model/, in the precision's products
            (sum(terms / targets)).backward()
        clip, step, yield

`Runner.steps()` is a generator: tests, benchmarks and notebooks can drive it. It writes nothing and prints nothing;
`lmctl.run.session` does.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmctl.core import stop
from lmctl.core.errors import ConfigError, DataError, Diverged
from lmctl.core.types import Batch
from lmctl.mix.stream import RowStream
from lmctl.plan import Plan
from lmctl.run.evaluate import Validation
from lmctl.run.learner import Learner, total_loss
from lmctl.run.prepare import Prepared
from lmctl.run.processes import Processes
from lmctl.run.state import TrainState, random_state, restore_random_state

SMALLEST_SCALE = 1.0
"""A loss scale below this means that gradients overflow whatever is done about it."""


@dataclass(frozen=True)
class StepReport:
    """One optimiser step, or one that fp16 skipped. Tensors stay on the device; reading them waits for it."""

    step: int
    taken: bool
    terms: dict[str, Tensor]
    """Summed loss per term, this process's share."""
    counts: dict[str, float]
    """Targets per term, over all processes."""
    tokens: int
    """Real tokens, over all processes."""
    lr: float
    grad_norm: Tensor


class Runner:
    """A plan with everything in memory: model, optimiser, data position."""

    def __init__(self, plan: Plan, prepared: Prepared, processes: Processes) -> None:
        self.plan, self.prepared, self.processes = plan, prepared, processes
        self.state = TrainState()
        self.stopped_by: str | None = None
        """The signal that ended `steps()` before the budget did."""
        device = processes.device
        self._check(device)
        seed_everything(plan.seed)
        name, task = plan.task
        self.network = plan.model.load(prepared.vocabulary, task.objective.heads)
        if plan.gradient_checkpointing:
            self.network.checkpoint_activations()
        self.learner = Learner(self.network.to(device), task.objective, plan.precision, device).train()
        self.optimizer = plan.optim.optimiser(self.network, device)
        self.scaler = plan.precision.scaler(device)
        if plan.compile:
            self.network.compile_body()
        self.wrapped = processes.wrap(self.learner)
        corpus = prepared.corpora[name]
        self.stream = RowStream(self._examples(name, "train"), plan.seed, name)
        micro = plan.batch.micro or plan.batch.rows // processes.world
        self.validation = Validation(name, self._examples(name, "valid"), plan.eval.rows, micro, processes)
        self.histogram = np.asarray(corpus.train.histogram)
        seed_everything(plan.seed + 1 + processes.rank)  # from here on the global generators serve dropout only
        self._clock = (time.monotonic(), time.process_time())

    def _examples(self, name: str, split: str) -> Any:
        task, store = self.plan.mix.tasks[name], getattr(self.prepared.corpora[name], split)
        try:
            return task.objective.examples(name, store, self.prepared.vocabulary, self.plan.batch.seq_len)
        except DataError as error:
            raise DataError(f"{name}, {split} split: {error}", error.hint) from error

    def _check(self, device: torch.device) -> None:
        plan, world = self.plan, self.processes.world
        if plan.batch.rows % world:
            near = max(world, plan.batch.rows // world * world)
            raise ConfigError(
                f"batch.size={plan.batch.rows} cannot be shared equally by {world} processes", f"nearest: {near}"
            )
        reason = plan.precision.refuse(device)
        if reason is not None:
            raise ConfigError(f"precision: {reason}")

    def spent(self, ahead: float = 0.0) -> float:
        """Share of the budget that is spent (1 or more: done), `ahead` steps from now."""
        budget, state = self.plan.budget, self.state
        rows = (state.window + ahead) * self.plan.batch.rows
        shares = [
            (state.step + ahead) / budget.most_steps if budget.most_steps else 0.0,
            (state.tokens + ahead * self.plan.batch.rows * self.plan.batch.seq_len) / budget.tokens
            if budget.tokens
            else 0.0,
            rows / (budget.epochs * len(self.stream.examples)) if budget.epochs else 0.0,
            state.seconds / (60 * budget.minutes) if budget.minutes else 0.0,
        ]
        return max(shares)

    def steps(self) -> Iterator[StepReport]:
        """Optimiser steps until the budget is spent or a signal asks to stop."""
        with ThreadPoolExecutor(1) as ahead:
            index = self.state.window
            coming = ahead.submit(self._window, index)
            while self.spent() < 1:
                window = coming.result()
                index += 1
                coming = ahead.submit(self._window, index)
                counts, tokens = self._agree(window)
                if self.stopped_by is not None:
                    return
                yield self._step(window, counts, tokens)

    def _window(self, index: int) -> list[Batch]:
        batch, here = self.plan.batch, self.processes
        return self.stream.window(index, batch.rows, batch.micro, here.rank, here.world)

    def _agree(self, window: list[Batch]) -> tuple[dict[str, float], int]:
        """What all processes must know before the step: targets per term, tokens, time, requests to stop."""
        names = list(window[0].targets)
        self._tick()
        reason = stop.requested()
        first = self.processes.first
        local = [float(sum(batch.counts()[name] for batch in window)) for name in names]
        local += [sum(batch.tokens for batch in window), reason is not None, self.state.seconds if first else 0.0]
        *counts, tokens, stops, seconds = self.processes.sum(local)
        self.state.seconds = seconds
        if stops:
            self.stopped_by = reason or "a stop signal"
        return dict(zip(names, counts, strict=True)), int(tokens)

    def _tick(self) -> None:
        wall, cpu = self._clock
        self._clock = (time.monotonic(), time.process_time())
        self.state.seconds += self._clock[0] - wall
        self.state.cpu_seconds += self._clock[1] - cpu

    def _step(self, window: list[Batch], counts: dict[str, float], tokens: int) -> StepReport:
        plan, state = self.plan, self.state
        lr = plan.optim.lr * plan.schedule.factor(min(1.0, max(self.spent(ahead=0.5), 1e-9)))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        terms: dict[str, Tensor] = {}
        for number, batch in enumerate(window, start=1):
            last = number == len(window)
            with nullcontext() if last else self.processes.unsynchronised(self.wrapped):
                parts = self.wrapped(batch.to(self.processes.device))
                self.scaler.scale(total_loss(parts, counts, self.processes.world)).backward()
            for name, value in parts.items():
                terms[name] = terms.get(name, 0.0) + value.detach().double()
        self.scaler.unscale(self.optimizer)
        grad_norm = self._clip()
        taken = self.scaler.step(self.optimizer, grad_norm)
        if taken:
            state.step += 1
        else:
            self._skip(grad_norm)
        self.optimizer.zero_grad(set_to_none=True)
        state.tokens += tokens
        if self.processes.world > 1:
            state.bytes_sent += self.gradient_bytes
        return StepReport(state.step, taken, terms, counts, tokens, lr, grad_norm)

    def _clip(self) -> Tensor:
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        waits = norm.device.type == "cpu" or hasattr(self.scaler, "value")  # fp16 asks the device in every step anyway
        if waits and not torch.isfinite(norm):
            return norm  # unclipped, so that the tensor that overflowed can be told from the others
        if self.plan.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.network.parameters(), self.plan.clip_norm, norm)
        return norm

    def _skip(self, grad_norm: Tensor) -> None:
        """A step was not taken: normal while fp16 looks for its scale, the end of the run otherwise."""
        scale = getattr(self.scaler, "value", None)
        if scale is None or scale < SMALLEST_SCALE:
            raise self.diverged("the loss scale fell below 1" if scale is not None else "")
        self.state.skipped += 1

    def diverged(self, why: str = "") -> Diverged:
        """The error for gradients that are not finite, naming the first such tensor."""
        bad = next((n for n, p in self.network.named_parameters() if not _finite(p.grad)), None)
        where = f"the gradient of {bad} is not finite" if bad else "the loss or a gradient is not finite"
        return Diverged(
            f"diverged at step {self.state.step + 1}: {where}{f' ({why})' if why else ''}; that step was not taken",
            f"lower optim.lr (now {self.plan.optim.lr:g}), lengthen schedule.warmup, or use precision=fp32 or bf16",
        )

    @property
    def gradient_bytes(self) -> int:
        """Bytes of gradients that one process hands to the reduction in one step."""
        return sum(p.numel() * p.element_size() for p in self.network.parameters() if p.requires_grad)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the weights that all processes share, for a checkpoint."""
        return {
            "progress": self.state.shared(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def own_state(self) -> dict[str, Any]:
        """What is this process's alone."""
        return {"random": random_state(), **self.state.own()}

    def load(self, weights: dict[str, Tensor], state: dict[str, Any], own: dict[str, Any] | None) -> None:
        """Go on from a checkpoint; `own` is None in a process that did not exist when it was written."""
        missing, unexpected = self.network.load_state_dict(weights, strict=False)
        tied = set(getattr(self.network.pretrained(), "all_tied_weights_keys", {}) or {})
        absent = [name for name in missing if name.removeprefix("bert.") not in tied]
        if absent or unexpected:
            raise ConfigError(f"resume: the checkpoint's weights do not fit the model ({(absent + unexpected)[0]})")
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        own = dict(own or {})
        saved_random = own.pop("random", None)
        self.state = TrainState(**state["progress"], **own)
        if saved_random is not None:
            restore_random_state(saved_random)
        self._clock = (time.monotonic(), time.process_time())


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _finite(gradient: Tensor | None) -> bool:
    return gradient is None or bool(torch.isfinite(gradient).all())
