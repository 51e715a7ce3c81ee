"""The loop: one window of rows in, one optimiser step out.

    for window of micro-batches:            mix/stream.py, of all tasks, collated ahead in a thread
        targets = global count per term     one sum over the processes, on the host
        for micro in window:                gradients cross the network on the last one only
            adversary.drive(micro)          as often as it likes:
                terms = learner(micro)          objective/, model/ and distill/, in the precision's products
                (sum(terms / targets)).backward()
        exchange                            compression/, unless DDP has averaged them already
        clip, step, yield

`Runner.steps()` is a generator: tests, benchmarks and notebooks can drive it. It writes nothing and prints nothing;
`lmctl.run.session` does.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lmctl.core import stop
from lmctl.core.batch import Batch
from lmctl.core.draws import Draws
from lmctl.core.errors import ConfigError, Diverged
from lmctl.core.lessons import Teacher
from lmctl.core.steps import Exchange
from lmctl.distill.on_policy import OnPolicy
from lmctl.mix.stream import MixStream, Position, Window
from lmctl.plan import Plan
from lmctl.run.assemble import blocks_of, check, check_network, examples_of, network_of
from lmctl.run.conflict import gradient_cosines
from lmctl.run.evaluate import Validation
from lmctl.run.learner import Fixed, Learner, Uncertainty
from lmctl.run.own_texts import OwnTexts
from lmctl.run.passes import Part, Passes
from lmctl.run.prepare import Prepared
from lmctl.run.processes import Processes
from lmctl.run.remembered import remembered
from lmctl.run.state import TrainState, random_state, restore_random_state
from lmctl.run.student import begin
from lmctl.run.teacher import asked, teacher_of, watch
from lmctl.run.teaching import Taught, Untaught
from lmctl.run.versions import repeating, versions_of

SMALLEST_SCALE = 1.0
"""A loss scale below this means that gradients overflow whatever is done about it."""


@dataclass(frozen=True)
class StepReport:
    """One optimiser step, or one that fp16 skipped. Tensors stay on the device; reading them waits for it."""

    step: int
    taken: bool
    terms: dict[str, Tensor]
    """Summed loss per `<task>/<term>`, this process's share."""
    counts: dict[str, float]
    """Targets per term, over all processes."""
    tokens: dict[str, int]
    """Real tokens per task, over all processes."""
    lr: float
    grad_norm: Tensor
    adversarial: dict[str, tuple[Tensor, int]]
    """What the adversary reports per `<task>/<term>`, summed, and of how many targets; this process's."""
    cosines: dict[str, float]
    """Between the tasks' gradients, by `<task>|<task>`, in the steps that look at them; over all processes."""


class Step(NamedTuple):
    """What an optimiser step spends of the budget."""

    steps: int
    tokens: int
    """Real ones, of all tasks and processes."""
    rows: int


class Runner:
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
        check(plan, processes.world, device, train)
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
        self.fingerprints = prepared.fingerprints | (teacher.fingerprints if teacher else {})
        """What a run goes on with only if it is the same: tokenizer, texts, teacher."""
        self._equip(network, teacher, [self.stream.first(task, 1) for task in self.stream.streams])
        writes = [lesson for lesson in plan.distill.lessons.values() if isinstance(lesson, OnPolicy)]
        if writes:
            self.own_texts = OwnTexts(writes[0], self.learner, train, family, plan.seed)
        self.passes = Passes(self)
        micro = batch.micro or batch.rows // processes.world
        self.validation = Validation(valid, self.learner.objectives, plan.eval.rows, micro, processes)
        # From here on the global generators serve dropout, and rounding in training, only: other numbers in every
        # process and under every seed.
        seed_everything(int(Draws(plan.seed, "dropout").generator(0, processes.rank).integers(1 << 63)))
        self._clock = (time.monotonic(), time.process_time())

    def _equip(self, network: Any, teacher: Teacher | None, examples: Sequence[Batch]) -> None:
        """Take `network`, and make all that it is trained with; `examples` is a batch of every task."""
        plan, processes, device = self.plan, self.processes, self.processes.device
        check_network(plan, network)
        self.network = network
        self.converted = plan.precision.convert(network, device)
        """What the precision did to the network, in words."""
        objectives = {name: task.objective for name, task in plan.mix.tasks.items()}
        self.losses = [f"{batch.task}/{term}" for batch in examples for term in batch.targets]
        """Every `<task>/<term>` of the objectives."""
        squared = [name for name in self.losses if objectives[name.rsplit("/", 1)[0]].label_kind == "number"]
        balance = Uncertainty(self.losses, squared) if plan.mix.balance == "uncertainty" else Fixed()
        teaching = Untaught()
        if teacher is not None:
            teaching = Taught(teacher, plan.distill, objectives, examples, watch(plan.distill, network))
        lessons = [f"{batch.task}/{term}" for batch in examples for term in teaching.counts(batch)]
        self.terms = [*self.losses, *lessons]
        """Those of the objectives, and those of the lesson."""
        learner = Learner(network, objectives, plan.precision, device, balance, teaching)
        self.learner = learner.to(device).train()
        self.optimizer = plan.precision.optimiser(plan.optim, self.learner, device, plan.seed)
        self.scaler = plan.precision.scaler(device)
        if plan.compile:
            network.compile_body()
        self.exchange = self._exchange()
        self.wrapped = processes.wrap(self.learner)
        self.exchange.attach(self.wrapped)

    def _exchange(self) -> Exchange:
        processes = self.processes
        return self.plan.compression.exchange(self.learner, processes.rank, processes.world, self.plan.clip_norm)

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

            def fetch(at: Position, progress: float) -> Future[list[Window]]:
                return ahead.submit(self._windows, at, progress)

            coming = fetch(Position.from_state(self.state.position), self.spent())
            while self.spent() < 1:
                windows = coming.result()
                if self.own_texts is not None:
                    windows = self.own_texts.rewritten(windows, self.state.window)
                counts, tokens = self._agree(windows)
                if self.stopped_by is not None:
                    return
                after = windows[0].after
                coming = fetch(after, self.spent(self._next(after, tokens)))
                report = self._step(windows, counts, tokens)
                if not report.taken:  # a step less is spent than was foreseen
                    coming = fetch(after, self.spent())
                yield report

    def _next(self, after: Position, tokens: Mapping[str, int]) -> Step:
        """What the step that ends at `after` spends if it is taken."""
        return Step(1, sum(tokens.values()), sum(after.rows.values()) - self._rows(self.state.position))

    def _windows(self, at: Position, progress: float) -> list[Window]:
        """The window at `at` as each of the workers that this process is computes it."""
        micro, workers = self.plan.batch.micro, self.exchange.workers
        return [self.stream.window(at, progress, micro, place, workers) for place in self.exchange.places]

    def _agree(self, windows: list[Window]) -> tuple[dict[str, float], dict[str, int]]:
        """What all processes must know before the step: targets per term, tokens, time, requests to stop."""
        self._tick()
        reason = stop.requested()
        counts, tokens = dict.fromkeys(self.terms, 0.0), dict.fromkeys(self.plan.mix.tasks, 0.0)
        for batch in (batch for window in windows for batch in window.batches):
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

    def _step(self, windows: list[Window], counts: dict[str, float], tokens: dict[str, int]) -> StepReport:
        plan, state = self.plan, self.state
        own = self.own_texts is not None and self.own_texts.turn(state.window)
        middle = self.spent(self._next(windows[0].after, tokens), part=0.5)
        lr = plan.optim.lr * plan.schedule.factor(min(1.0, max(middle, 1e-9)))
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1.0)
        self.learner.teaching.progress = min(1.0, self.spent())
        cosines = {}
        if plan.mix.conflict_every is not None and state.window % plan.mix.conflict_every == 0:
            cosines = gradient_cosines(self, windows, counts)
        terms: dict[str, Tensor] = {}
        adversarial: dict[str, tuple[Tensor, int]] = {}
        for window in windows:
            self._backward(window, counts, terms, adversarial)
            self.exchange.collect(self.scaler.value)
        self.exchange.finish(state.step)
        self.scaler.unscale(self.optimizer)
        grad_norm = self._clip()
        taken = self.scaler.step(self.optimizer, grad_norm)
        if taken:
            state.step += 1
        else:
            self._skip(grad_norm)
        self.optimizer.zero_grad(set_to_none=True)
        state.position = windows[0].after.state_dict()
        state.tokens += sum(tokens.values())
        state.task_tokens = {task: state.task_tokens.get(task, 0) + count for task, count in tokens.items()}
        state.bytes_sent += self.exchange.sent
        state.bytes_dense += self.exchange.dense
        if own:  # of a text of the student's own making its losses say nothing
            counts = {name: count for name, count in counts.items() if name not in self.losses}
        return StepReport(state.step, taken, terms, counts, tokens, lr, grad_norm, adversarial, cosines)

    def _backward(
        self,
        window: Window,
        counts: dict[str, float],
        terms: dict[str, Tensor],
        adversarial: dict[str, tuple[Tensor, int]],
    ) -> None:
        """The gradients of one worker's window; what is reported of it is added to `terms` and `adversarial`."""
        state, several = self.state, len(self.plan.mix.tasks) > 1
        for number, batch in enumerate(window.batches, start=1):
            last = number == len(window.batches)
            part = Part(counts, window.factors[batch.task], state.window, last, touch_all=several and last)
            micro = self.passes.over(batch, part)
            outcome = micro.driven(self.plan.adversary)
            state.micro_batches, state.passes = state.micro_batches + 1, state.passes + micro.ledger.passes
            for name, value in outcome.terms.items():
                if batch.own and name in batch.targets:
                    continue
                name = f"{batch.task}/{name}"
                terms[name] = terms.get(name, 0.0) + value.detach().double()
            sizes = self.learner.counts(batch)
            for name, value in outcome.adversarial.items():
                total, count = adversarial.get(f"{batch.task}/{name}", (0.0, 0))
                count += sizes[name]
                adversarial[f"{batch.task}/{name}"] = (total + value.detach().double(), count)
        if not window.batches:  # fewer rows than processes; the others wait for these gradients all the same
            self.scaler.scale(self.wrapped(None)["none"]).backward()

    def _clip(self) -> Tensor:
        gradients = [p.grad for p in self.learner.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        # fp16 asks the device in every step anyway, and so does every optimiser that cannot decide there.
        decides = getattr(self.optimizer, "_step_supports_amp_scaling", False) and not self.scaler.skips
        waits = norm.device.type == "cpu" or not decides
        if waits and not torch.isfinite(norm):
            return norm  # unclipped, so that the tensor that overflowed can be told from the others
        if self.plan.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.learner.parameters(), self.plan.clip_norm, norm)
        return norm

    def _skip(self, grad_norm: Tensor) -> None:
        """A step was not taken: normal while fp16 looks for its scale, the end of the run otherwise."""
        scale = self.scaler.value if self.scaler.skips else None
        if scale is None or scale < SMALLEST_SCALE:
            raise self.diverged("the loss scale fell below 1" if scale is not None else "")
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
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "balance": self.learner.balance.state_dict(),
            "teaching": self.learner.teaching.state_dict(),
        }

    def own_state(self) -> dict[str, Any]:
        """What is this process's alone."""
        carried: dict[str, Tensor] = getattr(self.network, "carried", dict)()
        exchange = self.exchange.state_dict()
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
        missing, unexpected = self.network.load_state_dict(weights, strict=False)
        tied = set(getattr(self.network.pretrained(), "all_tied_weights_keys", {}) or {})
        absent = [name for name in missing if name.removeprefix("model.") not in tied]
        if absent or unexpected:
            raise ConfigError(f"resume: the checkpoint's weights do not fit the model ({(absent + unexpected)[0]})")
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.learner.balance.load_state_dict(state["balance"])
        self.learner.teaching.load_state_dict(state.get("teaching", {}))
        own = dict(own or {})
        saved_random, carried, exchange = (own.pop(name, None) for name in ("random", "carried", "exchange"))
        if carried or others:
            self.network.carry(carried or others)
        if exchange:
            self.exchange.load_state_dict(exchange)
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
