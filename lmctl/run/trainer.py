"""Keeps time: which rows are next, how far the budget is spent, what a run goes on from.

`Trainer.steps()` is a generator of finished optimiser steps (`step.py`): tests, benchmarks and notebooks can drive it.
It writes nothing and prints nothing; `lmctl.run.session` does.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lmctl.core import stop
from lmctl.core.draws import Draws
from lmctl.core.errors import Diverged, LmctlError
from lmctl.distill.base import Teacher
from lmctl.distill.on_policy import OnPolicy
from lmctl.mix.stream import MixStream, Position, Window
from lmctl.plan import Plan
from lmctl.precision.scaling import LossScaler
from lmctl.run.assemble import blocks_of, check, examples_of, network_of
from lmctl.run.checkpoint import fill
from lmctl.run.conflict import gradient_cosines
from lmctl.run.evaluate import Validation
from lmctl.run.learner import Learner
from lmctl.run.own_texts import OwnTexts
from lmctl.run.perturb import TextPerturbations
from lmctl.run.prepare import Prepared
from lmctl.run.processes import Processes
from lmctl.run.remembered import remembered
from lmctl.run.setup import train_step
from lmctl.run.state import TrainState, random_state, restore_random_state
from lmctl.run.step import Moment, StepResult
from lmctl.run.strategy import Strategy, strategy_of
from lmctl.run.student import begin
from lmctl.run.teacher import asked, teacher_of
from lmctl.run.versions import repeating, versions_of

SMALLEST_SCALE = 1.0
"""A loss scale below this means that gradients overflow whatever is done about it."""


@dataclass(frozen=True)
class StepReport(StepResult):
    """A step in its run."""

    step: int
    counts: dict[str, float]
    """Targets per `<task>/<term>`, over all processes."""
    tokens: dict[str, int]
    """Real tokens per task, over all processes."""
    lr: float
    cosines: dict[str, float]
    """Between the tasks' gradients, by `<task>|<task>`, in the steps that look at them; over all processes."""


class Step(NamedTuple):
    """What an optimiser step spends of the budget."""

    steps: int
    tokens: int
    """Real ones, of all tasks and processes."""
    rows: int


class Trainer:
    """A plan with everything in memory: model, optimiser, data position."""

    own_texts: OwnTexts | None = None
    """Where the student learns from what it writes itself."""

    def __init__(self, plan: Plan, prepared: Prepared, processes: Processes) -> None:
        self.plan, self.prepared, self.processes = plan, prepared, processes
        self.state = TrainState()
        self.stopped_by: str | None = None
        """The signal that ended `steps()` before the budget did."""
        device, batch, family = processes.device, plan.batch, plan.model.family
        train = examples_of(plan.mix, family, batch, prepared, "train", augmented=True)
        valid = examples_of(plan.mix, family, batch, prepared, "valid", augmented=False)
        check(plan, 1 if processes.simulated else processes.world, device, train)
        if plan.compression.simulate_workers not in (None, processes.world):
            raise LmctlError("the workers of a simulated run are played by lmctl.run.simulate.as_workers")
        teacher: Teacher | None = None
        if asked(plan) and plan.teacher_cache == "off":
            teacher = teacher_of(plan, prepared, device)
        elif asked(plan):
            teacher = remembered(plan, prepared, train, device)
        train = repeating(train, versions_of(plan, train))
        seed_everything(plan.seed)  # after the teacher: the student begins as it would without one
        network = network_of(plan, prepared)
        self.begun = begin(plan, prepared, network)
        """What the student took over from its teacher, in words."""
        self.stream = MixStream(plan.mix, train, plan.seed, batch.rows, batch.tokens, blocks_of(plan, prepared))
        self.fingerprints = prepared.fingerprints | (dict(teacher.fingerprints) if teacher else {})
        """What a run goes on with only if it is the same: tokenizer, texts, teacher."""
        first = [self.stream.first(task, 1) for task in self.stream.streams]
        strategy = strategy_of(processes, plan.compression, plan.clip_norm)
        perturbations = TextPerturbations(plan, prepared, network, device)
        self.step, self.converted = train_step(plan, network, teacher, first, strategy, perturbations)
        """The optimiser step, and what the precision did to the network, in words."""
        self.losses = [f"{batch.task}/{term}" for batch in first for term in batch.targets]
        """Every `<task>/<term>` of the objectives."""
        lessons = [f"{batch.task}/{term}" for batch in first for term in self.learner.distillation.counts(batch)]
        self.terms = [*self.losses, *lessons]
        """Those of the objectives, and those of the lesson."""
        writes = [lesson for lesson in plan.distill.lessons.values() if isinstance(lesson, OnPolicy)]
        if writes:
            self.own_texts = OwnTexts(writes[0], self.learner, train, family, plan.seed)
        micro = batch.micro or batch.rows // processes.world
        self.validation = Validation(valid, self.learner.objectives, plan.eval.rows, micro, processes)
        # From here on the global generators serve dropout, and rounding in training, only: other numbers in every
        # process and under every seed.
        seed_everything(int(Draws(plan.seed, "dropout").generator(0, processes.rank).integers(1 << 63)))
        self._clock = (time.monotonic(), time.process_time())

    @property
    def learner(self) -> Learner:
        return self.step.learner

    @property
    def network(self) -> Any:
        return self.step.learner.network

    @property
    def strategy(self) -> Strategy:
        return self.step.strategy

    def spent(self, of: Step | None = None, part: float = 1.0) -> float:
        """Share of the budget that is spent (1 or more: done), or will be when `part` of the step `of` is taken. But
        for budget.minutes it is the same whether or not the run was interrupted on the way."""
        budget, state, more = self.plan.budget, self.state, of or Step(0, 0, 0)
        return max(
            (state.step + part * more.steps) / budget.most_steps if budget.most_steps else 0.0,
            (state.tokens + part * more.tokens) / budget.tokens if budget.tokens else 0.0,
            (self._rows(state.position) + part * more.rows) / (budget.epochs * self.stream.total)
            if budget.epochs
            else 0.0,
            state.seconds / (60 * budget.minutes) if budget.minutes else 0.0,
        )

    def _rows(self, position: Mapping[str, Any]) -> int:
        """Rows of all tasks drawn."""
        return sum(Position.from_state(position).rows.values())

    def steps(self) -> Iterator[StepReport]:
        """Optimiser steps until the budget is spent or a signal asks to stop."""
        with ThreadPoolExecutor(1) as ahead:

            def fetch(at: Position, progress: float) -> Future[Window]:
                return ahead.submit(self._window, at, progress)

            coming = fetch(Position.from_state(self.state.position), self.spent())
            while self.spent() < 1:
                window = coming.result()
                if self.own_texts is not None:
                    window = self.own_texts.rewritten(window, self.state.window)
                counts, tokens = self._agree(window)
                if self.stopped_by is not None:
                    return
                after = window.after
                coming = fetch(after, self.spent(self._next(after, tokens)))
                report = self._step(window, counts, tokens)
                if not report.taken:  # a step less is spent than was foreseen
                    coming = fetch(after, self.spent())
                yield report

    def _next(self, after: Position, tokens: Mapping[str, int]) -> Step:
        """What the step that ends at `after` spends if it is taken."""
        return Step(1, sum(tokens.values()), sum(after.rows.values()) - self._rows(self.state.position))

    def _window(self, at: Position, progress: float) -> Window:
        """This worker's part of the window at `at`."""
        return self.stream.window(at, progress, self.plan.batch.micro, self.processes.rank, self.processes.world)

    def _agree(self, window: Window) -> tuple[dict[str, float], dict[str, int]]:
        """What all processes must know before the step: targets per term, tokens, time, requests to stop."""
        self._tick()
        reason = stop.requested()
        counts, tokens = dict.fromkeys(self.terms, 0.0), dict.fromkeys(self.plan.mix.tasks, 0.0)
        for batch in window.batches:
            tokens[batch.task] += batch.tokens
            for term, count in self.learner.counts(batch).items():
                counts[f"{batch.task}/{term}"] += count
        local = [*counts.values(), *tokens.values(), reason is not None]
        *flat, stops, seconds = self.processes.sum([*local, self.state.seconds if self.processes.first else 0.0])
        self.state.seconds = seconds
        if stops:
            self.stopped_by = reason or "a stop signal"
        return (
            dict(zip(counts, flat, strict=False)),
            {task: int(count) for task, count in zip(tokens, flat[len(counts) :], strict=True)},
        )

    def _tick(self) -> None:
        wall, cpu = self._clock
        self._clock = (time.monotonic(), time.process_time())
        self.state.seconds += self._clock[0] - wall
        self.state.cpu_seconds += self._clock[1] - cpu

    def _step(self, window: Window, counts: dict[str, float], tokens: dict[str, int]) -> StepReport:
        plan, state, step = self.plan, self.state, self.step
        own = self.own_texts is not None and self.own_texts.turn(state.window)
        middle = self.spent(self._next(window.after, tokens), part=0.5)
        lr = plan.optim.lr * plan.schedule.factor(min(1.0, max(middle, 1e-9)))
        moment = Moment(state.step, state.window, min(1.0, self.spent()), lr)
        cosines = {}
        if plan.mix.conflict_every is not None and state.window % plan.mix.conflict_every == 0:
            cosines = gradient_cosines(step, window, counts, moment.progress, self.processes)
        result = step(window, counts, moment)
        if result.taken:
            state.step += 1
        else:
            self._skip(step.scaler)
        step.zero_grad()
        state.position = window.after.state_dict()
        state.tokens += sum(tokens.values())
        state.task_tokens = {task: state.task_tokens.get(task, 0) + count for task, count in tokens.items()}
        state.bytes_sent += self.strategy.sent
        state.bytes_dense += self.strategy.dense
        state.micro_batches += result.micro_batches
        state.passes += result.passes
        if own:  # of a text of the student's own making its losses say nothing
            counts = {name: count for name, count in counts.items() if name not in self.losses}
        return StepReport(**vars(result), step=state.step, counts=counts, tokens=tokens, lr=lr, cosines=cosines)

    def _skip(self, scaler: LossScaler) -> None:
        """A step was not taken: normal while fp16 looks for its scale, the end of the run otherwise."""
        if not scaler.skips or scaler.value < SMALLEST_SCALE:
            raise self.diverged("the loss scale fell below 1" if scaler.skips else "")
        self.state.skipped += 1

    def diverged(self, why: str = "") -> Diverged:
        """The error for gradients that are not finite, naming the first such tensor."""
        bad = next((n for n, p in self.learner.named_parameters() if not _finite(p.grad)), None)
        where = (
            f"the gradient of {bad.removeprefix('network.')} is not finite"
            if bad
            else "the loss or a gradient is not finite"
        )
        return Diverged(
            f"diverged at step {self.state.step + 1}: {where}{f' ({why})' if why else ''}; that step was not taken",
            f"lower optim.lr (now {self.plan.optim.lr:g}), lengthen schedule.warmup, or use precision=fp32 or bf16",
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything but the weights that all processes share, for a checkpoint."""
        return {
            "progress": self.state.shared(),
            "optimizer": self.step.optimizer.state_dict(),
            "scaler": self.step.scaler.state_dict(),
            "balance": self.learner.balance.state_dict(),
            "teaching": self.learner.distillation.state_dict(),
        }

    def own_state(self) -> dict[str, Any]:
        """What is this process's alone."""
        carried: dict[str, Tensor] = self.network.carried()
        exchange = self.strategy.state_dict()
        return {"random": random_state(), "carried": carried, "exchange": exchange, **self.state.own()}

    def load(
        self,
        weights: dict[str, Tensor],
        state: dict[str, Any],
        own: dict[str, Any] | None,
        others: dict[str, Tensor] | None = None,
    ) -> None:
        """Go on from a checkpoint; `own` is None in a process that did not exist when it was written, and `others` then
        the states that all processes together carried from row to row."""
        fill(self.network, weights, "resume")
        self.step.optimizer.load_state_dict(state["optimizer"])
        self.step.scaler.load_state_dict(state["scaler"])
        self.learner.balance.load_state_dict(state["balance"])
        self.learner.distillation.load_state_dict(state.get("teaching", {}))
        own = dict(own or {})
        saved_random, carried, exchange = (own.pop(name, None) for name in ("random", "carried", "exchange"))
        if carried or others:
            self.network.carry(carried or others)
        if exchange:
            self.strategy.load_state_dict(exchange)
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
