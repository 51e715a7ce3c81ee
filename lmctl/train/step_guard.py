"""Step guard: steps that are not taken because the gradients are not finite, or because the loss spikes.

A spike is a loss or a gradient norm more than `sigma` standard deviations above the mean of the last steps (the rule of
`SkipStepOptimizer` in OLMo-core). It is looked for before the optimiser steps, so that a skipped step leaves weights
and optimiser as they were.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lmctl.core.errors import Diverged
from lmctl.core.shards import local
from lmctl.parallel.processes import Processes
from lmctl.plan import Plan
from lmctl.precision.scaling import LossScaler
from lmctl.train.step import StepSums

SMALLEST_SCALE = 1.0
"""Minimum loss scale: below it, gradients overflow at any scale."""


class LossSpike(Diverged):
    """Loss or gradient norm is far above those of the steps before; the step was not taken."""


class StepGuard:
    """Decides whether a step is taken, and for how long steps may be skipped (`on_nonfinite`, `max_skips`, `spike`)."""

    def __init__(self, plan: Plan, processes: Processes) -> None:
        self.plan, self.rule, self.processes = plan, plan.spike, processes
        self.spike = ""
        """Description of the spike in the last step; empty if there was none."""
        self._skips = 0
        """Newest steps that were skipped, one after the other."""
        self._recent: dict[str, list[float]] = {}
        """Loss and gradient norm of the last steps."""

    @property
    def decides(self) -> bool:
        """Whether it must be asked before each update. Without it the loss scaler refuses what is not finite, on a GPU
        without a synchronisation."""
        return self.plan.on_nonfinite != "stop" or self.rule.action != "none"

    @property
    def skips(self) -> bool:
        """Whether the run may go on after a step that it refused, with all but the data as before that step."""
        return "skip" in (self.plan.on_nonfinite, self.rule.action)

    def allows(self, norm: Tensor, losses: StepSums, counts: Mapping[str, float]) -> bool:
        """Whether to take the step. `norm` float32 []: that of the averaged gradients; `losses`: sums of this process;
        `counts`: targets over all processes. A collective operation."""
        self.spike = ""
        if not torch.isfinite(norm):
            return False
        if self.rule.action == "none":
            return True
        now = {"loss": self._mean_loss(losses, counts), "gradient norm": float(norm)}
        self.spike = next(filter(None, (self._spike(name, value) for name, value in now.items())), "")
        if self.spike and self.rule.action != "warn":
            return False
        for name, value in now.items():
            self._recent[name] = [*self._recent.get(name, ()), value][-self.rule.steps :]
        return True

    def taken(self) -> None:
        """Count a step that was taken."""
        self._skips = 0

    def skipped(self, scaler: LossScaler, learner: nn.Module, steps: int) -> str:
        """Count a step of `learner` that was not taken after `steps` that were, and return a line about it, empty where
        it is part of fp16's search for a loss scale. Raises the error where the config says that the run ends or goes
        back to a checkpoint."""
        if self.spike:
            words = f"loss spike: {self.spike}; that step was not taken"
            error: Diverged = LossSpike(words, "lower optim.lr, or give a higher spike.sigma")
        elif scaler.skips and scaler.value >= SMALLEST_SCALE:
            return ""
        else:
            error = self.diverged(learner, steps, "the loss scale fell below 1" if scaler.skips else "")
        action = self.rule.action if self.spike else self.plan.on_nonfinite
        if action != "skip" or self._skips == self.plan.max_skips:
            raise error
        self._skips += 1
        return f"{error} (skip {self._skips} of at most {self.plan.max_skips} in a row)"

    def diverged(self, learner: nn.Module, steps: int, why: str = "") -> Diverged:
        """The error for gradients that are not finite after `steps` steps, with the name of the first such tensor."""
        bad = next((name for name, p in learner.named_parameters() if not _is_finite(p.grad)), None)
        what = f"the gradient of {bad.removeprefix('network.')}" if bad else "the loss or a gradient"
        because = f" ({why})" if why else ""
        return Diverged(
            f"diverged at step {steps + 1}: {what} is not finite{because}; that step was not taken",
            f"lower optim.lr (now {self.plan.optim.lr:g}), lengthen schedule.warmup, or use precision=fp32 or bf16",
        )

    @property
    def goes_back(self) -> bool:
        """Whether the run may go back to a checkpoint, and so needs one from its beginning on."""
        return "rollback" in (self.plan.on_nonfinite, self.rule.action)

    def rolls_back(self, error: Diverged) -> bool:
        """Whether the config says that after `error` the run goes back to a checkpoint."""
        return (self.rule.action if isinstance(error, LossSpike) else self.plan.on_nonfinite) == "rollback"

    def _mean_loss(self, losses: StepSums, counts: Mapping[str, float]) -> float:
        """Sum of the mean losses of all terms, over all processes."""
        names = [name for name, count in counts.items() if count]
        sums = self.processes.sum([float(losses.totals.get(name, 0.0)) for name in names])
        return sum(total / counts[name] for name, total in zip(names, sums, strict=True))

    def _spike(self, name: str, value: float) -> str:
        before = self._recent.get(name, [])
        if len(before) < self.rule.steps // 2:
            return ""
        mean, deviation = statistics.fmean(before), statistics.pstdev(before)
        if value - mean <= self.rule.sigma * deviation:
            return ""
        times = f"{(value - mean) / deviation:.1f} standard deviations" if deviation else "far"
        return f"the {name}, {value:.4g}, is {times} above the mean of the last {len(before)} steps, {mean:.4g}"

    def state_dict(self) -> dict[str, Any]:
        return {"skips": self._skips, "recent": self._recent}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._skips = int(state["skips"])
        self._recent = {name: [float(value) for value in values] for name, values in state["recent"].items()}


def _is_finite(gradient: Tensor | None) -> bool:
    return gradient is None or bool(torch.isfinite(local(gradient)).all())
