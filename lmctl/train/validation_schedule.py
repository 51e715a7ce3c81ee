"""Validation schedule and early stopping: when to validate, the best validation, and the weights of the newest one."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

from lmctl.core import heap
from lmctl.core.errors import ConfigError, Diverged
from lmctl.core.suggest import did_you_mean
from lmctl.train.trainer import Trainer
from lmctl.train.validation import ValidationResult

VALIDATIONS = 10
"""Number of validations in the budget, unless eval.every is set."""
LEAST_TRAINED = 2
"""Without eval.every, minimum number of training rows per validation row between two validations. A validation row
costs about a third of a training row (no backward pass), so that validations, except the first and the last, take a
seventh of the time at most."""


class Validator:
    """Validates the trainer's learner, and keeps the best and newest results in the training state."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.baseline: dict[str, float] = {}
        self.newest: ValidationResult | None = None
        """The last result measured by this process; None at first."""
        self._tenths = 0

    def begin(self) -> list[str]:
        """Compute the baseline, and validate unless a resumed run has a validation on the same rows; returns lines for
        people. ConfigError if early stopping uses a metric that does not exist."""
        trainer, state = self.trainer, self.trainer.state
        self._tenths = math.floor(trainer.spent() * VALIDATIONS)
        stores = {task: corpus.train for task, corpus in trainer.prepared.corpora.items()}
        self.baseline = trainer.validation.baseline(stores)
        words, before, now = [], state.validated.get("rows"), trainer.validation.counts
        if state.valid and before is not None and before != now:
            words.append(
                f"eval.rows: validation reads {_rows(now)} from here on, and read {_rows(before)} before: the figures "
                "before and after cannot be compared"
            )
            state.best, state.stale, state.valid = None, 0, {}
        if not state.valid or "about" not in state.validated:
            self._measure()
        self._check_metric()
        return words

    def went_back(self) -> None:
        """Follow the trainer, which has gone back to an earlier checkpoint."""
        self.newest, self._tenths = None, math.floor(self.trainer.spent() * VALIDATIONS)

    def _check_metric(self) -> None:
        metric, state = self.trainer.plan.early_stop.metric, self.trainer.state
        if metric not in state.valid:
            choices = did_you_mean(metric, state.valid)
            raise ConfigError(f"early_stop.metric={metric}: validation has no such figure{choices}")
        if state.best is not None and state.best["metric"] != metric:
            state.best, state.stale = None, 0  # different metrics cannot be compared

    @property
    def current(self) -> bool:
        """Whether the newest validation is of the current weights, on the current validation rows."""
        seen, state = self.trainer.state.validated, self.trainer.state
        return seen.get("window") == state.window and seen.get("rows") == self.trainer.validation.counts

    def is_due(self, spent: float) -> bool:
        """Whether a validation is due, when `spent` of the budget is spent; where workers train apart it waits until
        they have synchronised, lest the same weights are validated twice."""
        state = self.trainer.state
        state.validation_waits |= self._falls_due(spent)
        if not self.trainer.strategy.synchronised:
            return False
        due, state.validation_waits = state.validation_waits, False
        return due

    def _falls_due(self, spent: float) -> bool:
        every = self.trainer.plan.eval.every
        if every is not None:
            return self.trainer.state.step % every == 0
        before, self._tenths = self._tenths, math.floor(spent * VALIDATIONS)
        return self._tenths > before

    def trained_enough(self) -> bool:
        """Whether there were enough training rows since the last validation; always with eval.every."""
        state, plan = self.trainer.state, self.trainer.plan
        trained = (state.window - state.validated.get("window", 0)) * plan.batch.rows
        return plan.eval.every is not None or trained >= LEAST_TRAINED * sum(self.trainer.validation.counts.values())

    def validate(self) -> bool:
        """Validate the current weights; returns whether they are the best so far."""
        self._measure()
        return self.judge()

    def judge(self) -> bool:
        """Compare the newest validation with the best one (early stopping); returns whether it is better."""
        state, rule = self.trainer.state, self.trainer.plan.early_stop
        value = state.valid[rule.metric]
        sign = 1 if state.validated["about"][rule.metric]["higher_is_better"] else -1
        if state.best is None or sign * (value - state.best["value"]) > rule.min_delta:
            state.best, state.stale = {"step": state.step, "metric": rule.metric, "value": value}, 0
            return True
        state.stale += 1
        return False

    def measure_step(self, step: int) -> None:
        """Validate weights that were loaded from an earlier step."""
        self._measure()
        self.trainer.state.validated |= {"window": None, "step": step}  # not the weights of a window of this run

    def remeasure(self) -> None:
        """Validate the weights of the newest validation again, in this process."""
        self._measure()

    def _measure(self) -> None:
        trainer, state = self.trainer, self.trainer.state
        with trainer.step.average.in_use():
            found = trainer.micro.fitted(
                lambda: replace(trainer.validation, micro=trainer.micro.most).measured(trainer.learner)
            )
        heap.return_unused()  # a step's blocks have other sizes, and would not fit into its holes
        if not math.isfinite(found.figures["loss"]):
            if state.window == 0:
                raise Diverged(
                    f"the validation loss before the first step is {found.figures['loss']}: its weights are broken",
                    "begin with others (init_from=...), or use precision=fp32 or bf16",
                )
            why = f"the validation loss after step {state.step} is {found.figures['loss']}"
            raise trainer.guard.diverged(trainer.learner, state.step, why)
        self.newest, state.valid = found, found.figures
        about = {name: asdict(one) for name, one in self.newest.about.items()}
        rows = trainer.validation.counts
        state.validated = {"window": state.window, "step": state.step, "rows": rows, "about": about}

    def line(self) -> dict[str, Any]:
        """The newest validation as a line of metrics.jsonl."""
        state = self.trainer.state
        line: dict[str, Any] = {"step": state.step, "tokens": state.tokens, "seconds": round(state.seconds, 3)}
        line |= {"split": "valid", "loss": state.valid["loss"]}
        line |= {(f"loss/{n}" if n in self.trainer.terms else n): v for n, v in state.valid.items() if n != "loss"}
        return line | {"rows": sum(state.validated["rows"].values())}

    def summary(self) -> dict[str, Any]:
        """Entries of summary.json about the newest validation, besides its metrics."""
        seen, newest = self.trainer.state.validated, self.newest
        about = {"valid_step": seen.get("step"), "valid_rows": seen.get("rows", {})}
        about["valid_metrics"] = seen.get("about", {})
        if newest is not None:
            about["valid_targets"] = newest.targets
            about["valid_interval"] = {name: list(pair) for name, pair in newest.intervals.items()}
        return about


def _rows(counts: dict[str, int]) -> str:
    return f"{sum(counts.values()):,} rows"
