"""Training metrics between two log points: sums of losses, speed, and the line of metrics.jsonl they become."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lmctl.train.step import StepReport
from lmctl.train.summary import peak_memory
from lmctl.train.trainer import Trainer


class LogWindow:
    """Sums over the steps since the last log point. They go into checkpoints, so that a resumed run logs the same."""

    def __init__(self, trainer: Trainer) -> None:
        """After the trainer has loaded its checkpoint, if there is one."""
        self.trainer, state = trainer, trainer.state
        self._sums: dict[str, list[Any]] = {name: list(pair) for name, pair in state.pending.items()}
        self._since = (state.tokens, state.seconds - state.aside_seconds)
        self._overflow: Tensor | None = None

    def __bool__(self) -> bool:
        """Whether a step was taken since the last log point."""
        return bool(self._sums)

    def add(self, report: StepReport) -> None:
        """Add one step; of a step that was not taken, nothing counts."""
        if not report.taken:
            return
        for name, count in report.counts.items():
            self._add(name, report.losses.totals.get(name, 0.0), count)
        for name, total in report.adversarial.totals.items():
            self._add(f"adversarial/{name}", total, report.adversarial.counts[name])
        if report.cosines:
            self.trainer.state.cosines = {f"conflict/{pair}": cosine for pair, cosine in report.cosines.items()}
        bad = ~torch.isfinite(report.grad_norm)
        self._overflow = bad if self._overflow is None else self._overflow | bad

    def _add(self, name: str, total: Any, count: float) -> None:
        pair = self._sums.setdefault(name, [0.0, 0.0])
        pair[0], pair[1] = pair[0] + total, pair[1] + count

    def check_finite(self) -> None:
        """Diverged if a step had gradients that are not finite: on a GPU it was skipped on the device, and is found
        here."""
        if self._overflow is not None and bool(self._overflow):
            raise self.trainer.guard.diverged(self.trainer.learner, self.trainer.state.step)
        self._overflow = None

    def pending(self) -> dict[str, list[float]]:
        """The sums, for a checkpoint."""
        return {name: [float(total), float(count)] for name, (total, count) in self._sums.items()}

    def line(self, report: StepReport) -> dict[str, Any]:
        """The line of metrics.jsonl for the steps since the last one. A collective operation."""
        trainer, state = self.trainer, self.trainer.state
        self.check_finite()
        # A process may have no rows of a task, so all processes sum over all terms of the run.
        sums = trainer.processes.sum([float(self._sums.get(name, (0.0,))[0]) for name in trainer.terms])
        counts = {name: pair[1] for name, pair in self._sums.items() if pair[1]}
        means = {name: s / counts[name] for s, name in zip(sums, trainer.terms, strict=True) if name in counts}
        adversarial = self._adversarial()
        self._sums.clear()
        loss = sum(means[name] for name in trainer.losses if name in means)
        if not math.isfinite(loss):
            raise trainer.guard.diverged(trainer.learner, state.step, f"the mean training loss is {loss}")
        state.train = {"loss": loss, **means}
        training = state.seconds - state.aside_seconds
        tokens, seconds = state.tokens - self._since[0], training - self._since[1]
        self._since = (state.tokens, training)
        norm = float(report.grad_norm)
        line = {
            "step": state.step,
            "tokens": state.tokens,
            "seconds": round(state.seconds, 3),
            "split": "train",
            "loss": loss,
            **{f"loss/{name}": value for name, value in means.items()},
            **adversarial,
            "lr": report.lr,
            "grad_norm": norm if math.isfinite(norm) else None,
            "tokens_per_s": round(tokens / seconds, 1) if seconds > 0 else 0.0,
            "peak_memory_bytes": peak_memory(trainer.processes.device),
            "loss_scale": trainer.step.scaler.value,
            "skipped_steps": state.skipped,
            "bytes_sent": state.bytes_sent,
        }
        if figures := trainer.strategy.figures():
            line |= {"bytes_dense": state.bytes_dense, **figures}
        if len(state.task_tokens) > 1:
            line |= {f"tokens/{task}": count for task, count in state.task_tokens.items()}
            line |= {f"share/{task}": round(n / max(1, state.tokens), 4) for task, n in state.task_tokens.items()}
        line |= state.cosines
        state.cosines = {}
        return line

    def _adversarial(self) -> dict[str, float]:
        """Adversarial losses since the last log point, per target; summed over all terms of the run, because a process
        may have no rows of a task."""
        names = [f"adversarial/{name}" for name in self.trainer.terms]
        pairs = [pair for name in names for pair in map(float, self._sums.get(name, (0.0, 0.0)))]
        sums = self.trainer.processes.sum(pairs)
        found = zip(names, sums[::2], sums[1::2], strict=True)
        return {name: total / count for name, total, count in found if count}
