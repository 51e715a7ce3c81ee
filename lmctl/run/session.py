"""A run as its user sees it: the runner's steps with logging, validation, checkpoints, early stopping, summary."""

from __future__ import annotations

import math
import resource
import sys
from typing import Any

import torch
from torch import Tensor

from lmctl.core.errors import Stopped
from lmctl.core.files import digest
from lmctl.core.types import Paths
from lmctl.run.checkpoint import Checkpoints
from lmctl.run.display import Display, duration
from lmctl.run.export import export
from lmctl.run.identity import Identity
from lmctl.run.plot import plot_losses
from lmctl.run.proof import prove
from lmctl.run.record import Record
from lmctl.run.runner import Runner, StepReport

VALIDATIONS = 10
"""In the budget, unless eval.every says otherwise."""


class Session:
    """Carries one run through to its summary; every process has one, the first one writes."""

    def __init__(self, runner: Runner, paths: Paths, display: Display, identity: Identity) -> None:
        self.runner, self.paths, self.display, self.identity = runner, paths, display, identity
        self.plan, self.processes = runner.plan, runner.processes
        self.record = Record(paths)
        self.checkpoints = Checkpoints(
            paths.checkpoints,
            self.plan.checkpoint.keep,
            self.processes.rank,
            lambda bad: any(self.processes.sum([bad])),
        )
        self.pending: dict[str, list[Any]] = {}
        self._since = (0, 0.0)
        self._overflow: Tensor | None = None
        self.task = self.plan.task[0]

    def run(self) -> dict[str, Any]:
        """Train until the budget is spent; returns summary.json's contents."""
        runner, state = self.runner, self.runner.state
        self.pending = {name: list(pair) for name, pair in state.pending.items()}
        self._since = (state.tokens, state.seconds)
        self.baseline = runner.validation.baseline(runner.learner.objective, runner.histogram)
        if self.processes.first:
            self.record.begin(
                self.identity.config, runner.prepared.fingerprints, self._device_name(), state.metrics_bytes
            )
        self.precision = prove(runner)
        for role in ("compute", "proof"):
            self.display.say(f"precision: {role} {self.precision[role]}")
        self.display.start()
        try:
            if state.window == 0:
                self._validate()
            for report in runner.steps():
                if self._after(report):
                    break
            if runner.stopped_by is not None:
                self._save()
                raise Stopped(
                    f"{runner.stopped_by} after step {runner.state.step}; everything is saved",
                    f"go on with: resume=auto run_dir={self.paths.root}",
                )
            return self._finish()
        finally:
            self.display.stop()

    def _after(self, report: StepReport) -> bool:
        """Bookkeeping of one step; says whether to stop early."""
        self._collect(report)
        state, spent = self.runner.state, self.runner.spent()
        done = spent >= 1
        if report.taken and (state.step % self.plan.log.every == 0 or done):
            self._log(report)
        if not report.taken:
            return False
        validated = self._due(self.plan.eval.every, spent) or done
        if validated:
            state.tenths = math.floor(spent * VALIDATIONS)
            self._validate()
        every = self.plan.checkpoint.every
        if done or (validated if every is None else state.step % every == 0):
            self._save()
        patience = self.plan.early_stop.patience
        if patience is not None and state.stale >= patience and not done:
            self.display.say(f"stopping early: {patience} validations without a better {self.plan.early_stop.metric}")
            self._save()
            return True
        return False

    def _due(self, every: int | None, spent: float) -> bool:
        state = self.runner.state
        return math.floor(spent * VALIDATIONS) > state.tenths if every is None else state.step % every == 0

    def _collect(self, report: StepReport) -> None:
        for name, value in report.terms.items():
            pair = self.pending.setdefault(f"{self.task}/{name}", [0.0, 0.0])
            pair[0], pair[1] = pair[0] + value, pair[1] + report.counts[name]
        if report.taken:
            bad = ~torch.isfinite(report.grad_norm)
            self._overflow = bad if self._overflow is None else self._overflow | bad

    def _log(self, report: StepReport) -> None:
        runner, state = self.runner, self.runner.state
        if self._overflow is not None and bool(self._overflow):
            raise runner.diverged()
        self._overflow = None
        sums = self.processes.sum([float(pair[0]) for pair in self.pending.values()])
        means = {name: s / pair[1] for s, (name, pair) in zip(sums, self.pending.items(), strict=True) if pair[1]}
        self.pending.clear()
        state.train = {"loss": sum(means.values()), **means}
        tokens, seconds = state.tokens - self._since[0], state.seconds - self._since[1]
        self._since = (state.tokens, state.seconds)
        line = {
            "step": state.step,
            "tokens": state.tokens,
            "seconds": round(state.seconds, 3),
            "split": "train",
            "loss": state.train["loss"],
            **{f"loss/{name}": value for name, value in means.items()},
            "lr": report.lr,
            "grad_norm": float(report.grad_norm),
            "tokens_per_s": round(tokens / seconds, 1) if seconds > 0 else 0.0,
            "peak_memory_bytes": self._peak_memory(),
            "loss_scale": getattr(runner.scaler, "value", 1.0),
            "skipped_steps": state.skipped,
            "bytes_sent": state.bytes_sent,
        }
        self._write(line)

    def _validate(self) -> None:
        runner, state, rule = self.runner, self.runner.state, self.plan.early_stop
        state.valid = runner.validation.scores(runner.learner)
        line = {"step": state.step, "tokens": state.tokens, "seconds": round(state.seconds, 3), "split": "valid"}
        line |= {"loss": state.valid["loss"]}
        line |= {(n if n.endswith("accuracy") else f"loss/{n}"): v for n, v in state.valid.items() if n != "loss"}
        self._write(line)
        value = self.metric()
        better = state.best is None or (
            value > state.best["value"] + rule.min_delta
            if rule.metric.endswith("accuracy")
            else value < state.best["value"] - rule.min_delta
        )
        if better:
            state.best, state.stale = {"step": state.step, "metric": rule.metric, "value": value}, 0
        else:
            state.stale += 1

    def metric(self) -> float:
        """The validation figure that decides what is best."""
        from lmctl.core.errors import ConfigError
        from lmctl.core.suggest import did_you_mean

        valid, name = self.runner.state.valid, self.plan.early_stop.metric
        if name not in valid:
            raise ConfigError(f"early_stop.metric={name}: validation has no such figure{did_you_mean(name, valid)}")
        return valid[name]

    def _write(self, line: dict[str, Any]) -> None:
        if self.processes.first:
            self.runner.state.metrics_bytes = self.record.log(line)
        self.display.step(line, min(1.0, self.runner.spent()))

    def _save(self) -> None:
        runner, state = self.runner, self.runner.state
        state.pending = {name: [float(total), float(count)] for name, (total, count) in self.pending.items()}
        contents = runner.state_dict() | {"identity": self.identity.state_dict()}
        self.checkpoints.save(state.step, runner.network.state_dict(), contents, runner.own_state())
        if state.best is not None and state.best["step"] == state.step:
            self.checkpoints.mark_best(state.step)

    def _finish(self) -> dict[str, Any]:
        runner, state = self.runner, self.runner.state
        best = self.checkpoints.root / (self.checkpoints.named("best") or "")
        if self.plan.early_stop.patience is not None and (best / "manifest.json").exists():
            from lmctl.run.checkpoint import read

            runner.network.load_state_dict(read(best).weights, strict=False)
        cpu = self.processes.sum([state.cpu_seconds])[0]
        memory = self.processes.sum([self._peak_memory()])[0]
        parameters = list(runner.network.parameters())
        summary = {
            "status": "completed",
            "steps": state.step,
            "tokens": state.tokens,
            "seconds": round(state.seconds, 2),
            "tokens_per_second": round(state.tokens / state.seconds, 1),
            "tokens_per_cpu_second": round(state.tokens / cpu, 1),
            "train": state.train,
            "valid": state.valid,
            "baseline": self.baseline,
            "peak_memory_bytes": int(memory),
            "bytes_sent": state.bytes_sent,
            "bytes_dense": state.bytes_sent,
            "skipped_steps": state.skipped,
            "parameters": {
                "total": sum(p.numel() for p in parameters),
                "trainable": sum(p.numel() for p in parameters if p.requires_grad),
            },
            "model_bytes": sum(p.numel() * p.element_size() for p in parameters),
            "best": state.best,
            "precision": self.precision,
        }
        if self.processes.first:
            export(self.paths, runner.network, runner.prepared.tokenizer, summary)
            weights = self.paths.model / "model.safetensors"
            summary["model_bytes"] = weights.stat().st_size
            summary["model_sha256"] = digest(weights)
            plot_losses(self.paths, self.baseline)
            self.record.finish(summary)
        self.processes.wait()
        self.display.stop()
        return summary

    def _peak_memory(self) -> int:
        """Bytes: of the GPU's memory where there is one, else the resident set of this process."""
        if self.processes.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.processes.device)
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def _device_name(self) -> str:
        device = self.processes.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def closing_words(summary: dict[str, Any], paths: Paths, task: str) -> list[str]:
    """What a person should know at the end: what was reached, what it beat, where it lies, what to type next."""
    valid, baseline = summary["valid"], summary["baseline"]
    size, speed = summary["parameters"]["total"], summary["tokens_per_second"]
    lines = [
        f"done: {summary['steps']:,} steps in {duration(summary['seconds'])}, {speed:,.0f} tokens/s, {size:,} weights"
    ]
    for name, value in valid.items():
        if name in baseline and name != "loss":
            unit = f"{value:.1%} against {baseline[name]:.1%}" if name.endswith("accuracy") else ""
            lines.append(f"  {name:<22}{unit or f'{value:.3f} nats against {baseline[name]:.3f}'} without the text")
    lines += [
        f"  run: {paths.root}   model: {paths.model}   curve: {paths.plot}",
        f'next: lmctl generate model_path={paths.root} prompt="The [MASK] statement is used to define a function."',
        f"      lmctl train resume=auto run_dir={paths.root} budget.steps={2 * summary['steps']}",
    ]
    return lines
