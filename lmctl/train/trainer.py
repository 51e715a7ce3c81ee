"""Training loop: data order, budget, learning rate, prefetch of the next window, and state for checkpoints.

`Trainer.steps()` is a generator of finished optimiser steps (`step.py`), for sessions, tests, benchmarks and notebooks.
It writes no files and prints nothing; `lmctl.train.session` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from lmctl.core import signals
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import LmctlError
from lmctl.distill.cached_teacher import teacher_in_training
from lmctl.distill.init_from_teacher import init_from_teacher
from lmctl.distill.on_policy import OnPolicy
from lmctl.distill.on_policy_rollout import OnPolicyRollout
from lmctl.mix.stream import MixStream, Position, Window
from lmctl.parallel.processes import Processes
from lmctl.parallel.random_state import random_state, restore_random_state
from lmctl.parallel.strategy import Strategy
from lmctl.plan import Plan
from lmctl.train.budget_share import BudgetShare, Spent
from lmctl.train.build_parts import blocks_of, check, examples_of, network_of, with_functions
from lmctl.train.build_step import train_step
from lmctl.train.checkpoint_reader import fill
from lmctl.train.dropout import dropout_state, set_dropout_state
from lmctl.train.gradient_conflict import gradient_cosines
from lmctl.train.learner import Learner
from lmctl.train.micro_batches import MicroBatches
from lmctl.train.own_replica import load_replica, replica_state
from lmctl.train.perturbations import TextPerturbations
from lmctl.train.prepare import Prepared
from lmctl.train.shard_files import placed, put_all
from lmctl.train.state import TrainState, seed_everything
from lmctl.train.static_masking import repeating, versions_of
from lmctl.train.step import StepContext, StepReport
from lmctl.train.step_guard import StepGuard
from lmctl.train.validation import Validation


class Drawn(NamedTuple):
    """Number of windows drawn from the data, and the position after them."""

    windows: int
    after: Position


class Trainer:
    """A training run in memory: model, optimiser, data position."""

    rollout: OnPolicyRollout | None = None
    """On-policy distillation: the student generates rows."""

    def __init__(self, plan: Plan, prepared: Prepared, processes: Processes) -> None:
        plan = with_functions(plan, processes.device)  # a command has chosen them, and recorded them, before
        self.plan, self.prepared, self.processes = plan, prepared, processes
        self.state = TrainState()
        self.stopped_by: str | None = None
        """The signal that ended `steps()` before the budget was spent."""
        device, batch, family = processes.device, plan.batch, plan.model.family
        train = examples_of(plan.mix, family, batch, prepared, "train", augmented=True)
        valid = examples_of(plan.mix, family, batch, prepared, "valid", augmented=False)
        check(plan, 1 if processes.simulated else processes.world, device, train)
        if plan.simulated_workers not in (None, processes.world):
            raise LmctlError("the workers of a simulated run are played by lmctl.parallel.simulate.as_workers")
        strategy = plan.runner.strategy(processes, plan.compression, plan.clip_norm)
        teacher = teacher_in_training(plan, prepared, train, device, strategy)
        train = repeating(train, versions_of(plan, train))
        seed_everything(plan.seed)  # after the teacher: the same initial weights as without one
        with strategy.building():
            network = network_of(plan, prepared)
            self.copied_layers = init_from_teacher(plan, prepared, network)
            """Lines about layers that were copied from the teacher."""
        shape = batch.rows, batch.tokens, blocks_of(plan, prepared), batch.rows_at
        self.stream = MixStream(plan.mix, train, plan.seed, *shape)
        self.budget = BudgetShare(plan.budget, self.stream.total)
        self.fingerprints = prepared.fingerprints | (dict(teacher.fingerprints) if teacher else {})
        """Fingerprints of tokenizer, texts and teacher, which must not change when the run is resumed."""
        first = [self.stream.first(task, 1) for task in self.stream.streams]
        perturbations = TextPerturbations(plan, prepared, network, device)
        self.guard = StepGuard(plan, processes)
        self.step, self.converted = train_step(plan, network, teacher, first, strategy, perturbations, self.guard)
        """The optimiser step, and lines about the conversion by the precision."""
        self.losses = [f"{batch.task}/{term}" for batch in first for term in batch.targets]
        """Every `<task>/<term>` of the objectives."""
        distilled = [f"{batch.task}/{term}" for batch in first for term in self.learner.distillation.counts(batch)]
        self.terms = [*self.losses, *distilled]
        """Terms of the objectives and distillation losses."""
        writes = [term for term in plan.distill.terms.values() if isinstance(term, OnPolicy)]
        if writes:
            self.rollout = OnPolicyRollout(writes[0], self.learner, train, family, plan.seed)
        self.micro = MicroBatches(batch, batch.rows // processes.world, strategy.overlaps)
        self.validation = Validation(
            valid, self.learner.objectives, plan.eval.rows, self.micro.most, processes, strategy.turns
        )
        self.notes: list[str] = []
        """Lines for people about steps that went another way than planned; the session shows and clears them."""
        self.drawn = Drawn(0, Position())
        """What the newest step, taken or not, has drawn from the data."""
        # From here on the global generators are for dropout and rounding only, with a seed for each process and run.
        seed_everything(int(CounterRng(plan.seed, "dropout").generator(0, processes.rank).integers(1 << 63)))
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

    def spent(self, coming: Spent | None = None, part: float = 1.0) -> float:
        """Share of the budget that is spent (1 or more: done), or will be after `part` of `coming`. Except with
        budget.minutes it does not depend on interruptions."""
        state = self.state
        before = Spent(state.step, state.tokens, self._rows(state.position))
        return self.budget.spent(before, coming or Spent(), part, state.seconds)

    def _rows(self, position: Mapping[str, Any]) -> int:
        """Number of rows drawn, of all tasks."""
        return sum(Position.from_state(position).rows.values())

    def steps(self) -> Iterator[StepReport]:
        """Generate optimiser steps until the budget is spent or a stop signal arrives."""
        with ThreadPoolExecutor(1) as ahead:
            at, progress, limit = Position.from_state(self.state.position), self.spent(), self.micro.limit
            coming = ahead.submit(self._window, at, progress)
            while self.spent() < 1:
                if self.micro.limit != limit:  # memory ran out after the window was drawn, perhaps in a validation
                    coming, limit = ahead.submit(self._window, at, progress), self.micro.limit
                window = self._rewritten(coming.result())
                counts, tokens = self._agree(window)
                if self.stopped_by is not None:
                    return
                again = partial(self._window, at, progress)
                at, progress = window.after, self.spent(self._next(window.after, tokens))
                coming = ahead.submit(self._window, at, progress)
                report = self._step(window, counts, tokens, again)
                if not report.taken:  # the prefetched window assumed one more step
                    progress = self.spent()
                    coming = ahead.submit(self._window, at, progress)
                yield report

    def _rewritten(self, window: Window) -> Window:
        """The window with the student's own texts where on-policy distillation wants them."""
        return window if self.rollout is None else self.rollout.rewritten(window, self.state.window)

    def _next(self, after: Position, tokens: Mapping[str, int]) -> Spent:
        """What the step that ends at `after` will spend if it is taken."""
        return Spent(1, sum(tokens.values()), sum(after.rows.values()) - self._rows(self.state.position))

    def _window(self, at: Position, progress: float) -> Window:
        """This worker's part of the window at `at`, in pinned memory if it will be copied to a GPU."""
        window = self.stream.window(at, progress, self.micro.limit, self.processes.rank, self.processes.world)
        return window.pinned() if self.processes.device.type == "cuda" else window

    def _agree(self, window: Window) -> tuple[dict[str, float], dict[str, int]]:
        """All-reduce of host values before the step: targets per term, tokens, time, stop requests."""
        self._tick()
        reason = signals.requested()
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
        self.state.seconds += max(0.0, self._clock[0] - wall)  # a machine that was moved or asleep may count back
        self.state.cpu_seconds += self._clock[1] - cpu

    def _step(
        self, window: Window, counts: dict[str, float], tokens: dict[str, int], again: Callable[[], Window]
    ) -> StepReport:
        """One step on `window`; `again` draws it once more, in smaller micro-batches if memory has run out."""
        plan, state, step = self.plan, self.state, self.step
        self.drawn = Drawn(state.window + 1, window.after)
        own = self.rollout is not None and self.rollout.is_rollout_step(state.window)
        middle = self.spent(self._next(window.after, tokens), part=0.5)
        lr = plan.optim.lr * plan.schedule.factor(min(1.0, max(middle, 1e-9)))
        moment = StepContext(state.step, state.window, min(1.0, self.spent()), lr)
        conflicts = plan.mix.conflict_every is not None and state.window % plan.mix.conflict_every == 0
        cosines: dict[str, float] | None = None if conflicts else {}
        memory, dropout = self.network.memory(), dropout_state(self.processes.device)
        while True:
            try:
                if cosines is None:
                    cosines = gradient_cosines(step, window, counts, moment.progress, self.processes)
                done = step.accumulate(window, counts, moment)
                break
            except Exception as error:
                self.micro.halve(max(len(batch.inputs["input_ids"]) for batch in window.batches), error)
            step.zero_grad()
            self.network.recall(memory)
            set_dropout_state(dropout, self.processes.device)
            window = self._rewritten(again())
        result = step.update(done, counts, moment)
        if result.taken:
            state.step += 1
            self.guard.taken()
            if self.guard.spike:
                self.notes.append(f"loss spike at step {state.step}: {self.guard.spike}")
        else:
            if note := self.guard.skipped(step.scaler, self.learner, state.step):
                self.notes.append(note)
                self.network.recall(memory)
            state.skipped += 1
        step.zero_grad()
        state.position = window.after.state_dict()
        state.tokens += sum(tokens.values())
        state.task_tokens = {task: state.task_tokens.get(task, 0) + count for task, count in tokens.items()}
        self.strategy.after_step(result.taken, last=self.spent() >= 1)
        state.bytes_sent += self.strategy.sent
        state.bytes_dense += self.strategy.dense
        state.micro_batches += result.micro_batches
        state.passes += result.passes
        if own:  # the losses on generated texts are not comparable
            counts = {name: count for name, count in counts.items() if name not in self.losses}
        return StepReport(**vars(result), step=state.step, counts=counts, tokens=tokens, lr=lr, cosines=cosines)

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint, except the weights; the same in all processes."""
        return {
            "progress": self.state.shared(),
            "optimizer": self.step.optimizer.state_dict(),
            "scaler": self.step.scaler.state_dict(),
            "balance": {} if self.learner.balance is None else self.learner.balance.state_dict(),
            "teaching": self.learner.distillation.state_dict(),
            "guard": self.guard.state_dict(),
            "average": self.step.average.state_dict(),
            "outer": self.strategy.shared_state_dict(),
        }

    def own_state(self) -> dict[str, Any]:
        """State of this process alone."""
        kept = {
            "carried": self.network.carried(),
            "exchange": self.strategy.state_dict(),
            "replica": replica_state(self.step),
            "fitting": self.micro.fitting,
        }
        return {"random": random_state(), **kept, **self.state.own()}

    def load(
        self,
        weights: dict[str, Any],
        state: dict[str, Any],
        own: dict[str, Any] | None,
        others: dict[str, Tensor] | None = None,
    ) -> None:
        """Load a checkpoint. `own` is None in a process that did not exist when it was written; then `others` are the
        recurrent states of all processes."""
        fill(self.network, weights, "resume")
        average = state.get("average", {})  # not in checkpoints of older versions
        self.step.average.load_state_dict(placed(average, self.strategy.placed))
        self.step.optimizer.load_state_dict(placed(state["optimizer"], self.strategy.placed))
        self.step.scaler.load_state_dict(state["scaler"])
        if self.learner.balance is not None:
            put_all(self.learner.balance, state["balance"])
        put_all(self.learner.distillation, state.get("teaching", {}))
        self.strategy.load_shared_state_dict(state.get("outer", {}))
        if "guard" in state:  # not in checkpoints of older versions
            self.guard.load_state_dict(state["guard"])
        own = dict(own or {})
        parts = ("random", "carried", "exchange", "replica")
        saved_random, carried, exchange, replica = (own.pop(name, None) for name in parts)
        self.micro.resume(own.pop("fitting", None))
        if carried or others:
            self.network.carry(carried or others)
        if exchange:
            self.strategy.load_state_dict(exchange)
        load_replica(self.step, replica or {})
        self.state = TrainState.from_state(state["progress"], own)
        if saved_random is not None:
            restore_random_state(saved_random)
        self._clock = (time.monotonic(), time.process_time())
