"""Training session: the trainer's steps with logging, validation, checkpoints, early stopping and summary."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lmctl.core import signals
from lmctl.core.command_words import command
from lmctl.core.errors import LmctlError, Stopped
from lmctl.core.files import digest
from lmctl.core.paths import Paths
from lmctl.parallel.machine import machine
from lmctl.train import malloc_trim
from lmctl.train.checkpoint import Checkpoints, read, verify
from lmctl.train.confidence_intervals import guess
from lmctl.train.display import Display
from lmctl.train.export import export, write_template
from lmctl.train.loss_plot import Plotter
from lmctl.train.precision_proof import FirstStep, prove
from lmctl.train.run_identity import Identity
from lmctl.train.run_record import Record
from lmctl.train.summary import peak_memory, summary_of
from lmctl.train.trainer import StepReport, Trainer
from lmctl.train.validation_schedule import Validator


class Session:
    """Runs a trainer to the end of its budget; every process has one, rank 0 writes."""

    def __init__(
        self, trainer: Trainer, paths: Paths, display: Display, identity: Identity, config: dict[str, Any]
    ) -> None:
        """`config`: the contents of config.yaml, with interpolations unresolved."""
        self.trainer, self.paths, self.display = trainer, paths, display
        self.identity, self.config = identity, config
        self.plan, self.processes = trainer.plan, trainer.processes
        self.record = Record(paths)
        self.checkpoints = Checkpoints(
            paths.checkpoints,
            self.plan.checkpoint.keep,
            self.processes.rank,
            lambda bad: any(self.processes.sum([bad])),
        )
        self.validator = Validator(trainer)
        self.plotter = Plotter(paths, display.say)
        self.machine = machine(self.processes)
        self.began = False
        self.precision: dict[str, Any] = {}
        self.pending: dict[str, list[Any]] = {}
        self._since = (0, 0.0)
        self._aside = 0.0
        """Seconds spent outside of training since the trainer last read its clock."""
        self._saved = -1
        self._overflow: Tensor | None = None

    def run(self) -> dict[str, Any]:
        """Train until the budget is spent; returns the contents of summary.json."""
        try:
            with self._not_training():
                self._begin()
            self.display.start()
            first: FirstStep | None = FirstStep(self.trainer)
            for report in self.trainer.steps():
                if first is not None and first.complete(report):
                    first = None
                if self._after(report):
                    break
            if self.trainer.stopped_by is not None:
                self._stop()
            return self._finish()
        except LmctlError as error:
            status = "stopped" if isinstance(error, Stopped) else "failed"
            if self.began and self.processes.first:
                self.record.finish(self._summary(status) | {"error": str(error)})
                if status == "stopped" or self.processes.world == 1:  # with peers, a failed process must exit now
                    self.plotter.draw(self.validator.baseline)
            raise
        finally:
            self.display.stop()

    def _begin(self) -> None:
        trainer, state = self.trainer, self.trainer.state
        self.pending = {name: list(pair) for name, pair in state.pending.items()}
        self._since = (state.tokens, state.seconds - state.aside_seconds)
        before = state.validated
        for line in self.validator.begin():
            self.display.say(line)
        self.precision = prove(trainer)
        for line in trainer.converted:
            self.display.say(f"precision: {line}")
        for role in ("compute", "proof"):
            self.display.say(f"precision: {role} {self.precision[role]}")
        if (cost := self.plan.adversary.passes) > 1:
            self.display.say(f"adversary: {type(self.plan.adversary).__name__}, {cost:g} passes per micro-batch")
        for line in trainer.learner.distillation.shown:
            self.display.say(f"distill: {line}")
        if words := trainer.strategy.describe():
            self.precision["reduction"] = words[0]
        for line in (*words, *self.plan.compression.remarks(self.plan.optim)):
            self.display.say(f"compression: {line}")
        if self.processes.first:
            self.record.begin(self.config, trainer.fingerprints, self.machine, state.metrics_bytes)
            write_template(self.paths, trainer, renew=state.window == 0)
        self.began = True
        if state.validated is not before:
            self.validator.judge()
            self._write(self.validator.line())
            if self.plan.early_stop.patience is not None:
                self._save()  # the untrained model may turn out to be the best

    def _stop(self) -> None:
        """Save a checkpoint and exit, after a stop signal."""
        self._save()
        self.processes.barrier()
        signals.ignore()
        raise Stopped(
            f"{self.trainer.stopped_by} after step {self.trainer.state.step}; everything is saved",
            f"go on with: {command(f'lmctl {self.plan.verb} resume=auto', run_dir=self.paths.root)}\n"
            f"  or use it as it is: {command('lmctl eval', model_path=self.paths.root)}",
        )

    def _after(self, report: StepReport) -> bool:
        """Bookkeeping after one step; returns whether to stop early."""
        self.trainer.state.aside_seconds += self._aside
        self._aside = 0.0
        self._collect(report)
        if self.trainer.state.window % malloc_trim.EVERY == 0 and self.processes.device.type == "cpu":
            malloc_trim.trim_heap()
        state, spent = self.trainer.state, self.trainer.spent()
        done = spent >= 1
        if not report.taken and not done:
            return False
        if state.step % self.plan.log.every == 0 or done:
            self._log(report)
        with self._not_training():
            return self._validate_and_save(done, self.validator.is_due(spent))

    def _validate_and_save(self, done: bool, due: bool) -> bool:
        """Validate and save if due; returns whether to stop early."""
        state, better = self.trainer.state, False
        every, patience = self.plan.checkpoint.every, self.plan.early_stop.patience
        if validated := done or (due and self.validator.trained_enough()):
            better = self.validator.validate()
            self._write(self.validator.line())
        ends = done or (patience is not None and state.stale >= patience)
        if ends or (due if every is None else state.step % every == 0) or (better and patience is not None):
            self._save()
        if validated and not ends and self.processes.first:
            self.plotter.draw_if_due(self.validator.baseline)
        if ends and not done:
            self.display.say(f"stopping early: {patience} validations without a better {self.plan.early_stop.metric}")
        return ends

    @contextmanager
    def _not_training(self) -> Iterator[None]:
        """Context whose time does not count as training time."""
        began = time.monotonic()
        yield
        self._aside += time.monotonic() - began

    def _collect(self, report: StepReport) -> None:
        for name, count in report.counts.items():
            pair = self.pending.setdefault(name, [0.0, 0.0])
            pair[0], pair[1] = pair[0] + report.losses.totals.get(name, 0.0), pair[1] + count
        for name, total in report.adversarial.totals.items():
            pair = self.pending.setdefault(f"adversarial/{name}", [0.0, 0.0])
            pair[0], pair[1] = pair[0] + total, pair[1] + report.adversarial.counts[name]
        if report.cosines:
            self.trainer.state.cosines = {f"conflict/{pair}": cosine for pair, cosine in report.cosines.items()}
        if report.taken:
            bad = ~torch.isfinite(report.grad_norm)
            self._overflow = bad if self._overflow is None else self._overflow | bad

    def _check_finite(self) -> None:
        """On a GPU, steps with non-finite gradients were skipped on the device; check for them now."""
        if self._overflow is not None and bool(self._overflow):
            raise self.trainer.diverged()
        self._overflow = None

    def _log(self, report: StepReport) -> None:
        trainer, state = self.trainer, self.trainer.state
        self._check_finite()
        # A process may have no rows of a task, so all processes sum over all terms of the run.
        sums = self.processes.sum([float(self.pending.get(name, (0.0,))[0]) for name in trainer.terms])
        counts = {name: pair[1] for name, pair in self.pending.items() if pair[1]}
        means = {name: s / counts[name] for s, name in zip(sums, trainer.terms, strict=True) if name in counts}
        adversarial = self._adversarial()
        self.pending.clear()
        state.train = {"loss": sum(means[name] for name in trainer.losses if name in means), **means}
        training = state.seconds - state.aside_seconds
        tokens, seconds = state.tokens - self._since[0], training - self._since[1]
        self._since = (state.tokens, training)
        line = {
            "step": state.step,
            "tokens": state.tokens,
            "seconds": round(state.seconds, 3),
            "split": "train",
            "loss": state.train["loss"],
            **{f"loss/{name}": value for name, value in means.items()},
            **adversarial,
            "lr": report.lr,
            "grad_norm": float(report.grad_norm),
            "tokens_per_s": round(tokens / seconds, 1) if seconds > 0 else 0.0,
            "peak_memory_bytes": peak_memory(self.processes.device),
            "loss_scale": trainer.step.scaler.value,
            "skipped_steps": state.skipped,
            "bytes_sent": state.bytes_sent,
        }
        if figures := trainer.strategy.figures():
            line |= {"bytes_dense": state.bytes_dense, **figures}
        if len(state.task_tokens) > 1:
            line |= {f"tokens/{task}": count for task, count in state.task_tokens.items()}
            line |= {f"share/{task}": round(n / max(1, state.tokens), 4) for task, n in state.task_tokens.items()}
        self._write(line | state.cosines)
        state.cosines = {}

    def _adversarial(self) -> dict[str, float]:
        """Adversarial losses since the last log point, per target; summed over all terms of the run, because a process
        may have no rows of a task."""
        names = [f"adversarial/{name}" for name in self.trainer.terms]
        pairs = [pair for name in names for pair in map(float, self.pending.get(name, (0.0, 0.0)))]
        sums = self.processes.sum(pairs)
        found = zip(names, sums[::2], sums[1::2], strict=True)
        return {name: total / count for name, total, count in found if count}

    def _write(self, line: dict[str, Any]) -> None:
        if self.processes.first:
            self.trainer.state.metrics_bytes = self.record.log(line)
        self.display.step(line, min(1.0, self.trainer.spent()))

    def _save(self) -> None:
        trainer, state = self.trainer, self.trainer.state
        if self._saved == state.window:
            return
        self._check_finite()
        state.pending = {name: [float(total), float(count)] for name, (total, count) in self.pending.items()}
        if self.processes.first:
            self.record.sync()
        contents = trainer.state_dict() | {"identity": self.identity.state_dict()}
        best = state.best is not None and state.best["step"] == state.step
        self.checkpoints.save(state.step, trainer.network.state_dict(), contents, trainer.own_state(), best)
        self._saved = state.window

    def _finish(self) -> dict[str, Any]:
        """Export the final weights, and write the summary with their metrics."""
        trainer, state, validator = self.trainer, self.trainer.state, self.validator
        exported = state.step
        if not validator.current:  # stopped before a validation, or resumed with a spent budget
            validator.validate()
            self._write(validator.line())
        if (best := self._best()) is not None:
            exported = best
            trainer.network.load_state_dict(read(self.checkpoints.path(best)).weights, strict=False)
            validator.measure_step(best)
        elif validator.newest is None:  # the same metrics again, for their intervals
            validator.remeasure()
        summary = self._summary("completed") | {"exported_step": exported}
        summary["tokens_per_cpu_second"] = round(
            state.tokens / self.processes.sum_of_processes([state.cpu_seconds])[0], 1
        )
        summary["peak_memory_bytes"] = int(self.processes.sum_of_processes([peak_memory(self.processes.device)])[0])
        if self.processes.first:
            export(self.paths, trainer, summary)
            weights = self.paths.model / "model.safetensors"
            summary |= {"model_bytes": weights.stat().st_size, "model_sha256": digest(weights)}
            self.record.finish(summary)
            self.plotter.draw(validator.baseline)
        self.processes.barrier()
        return summary

    def _best(self) -> int | None:
        """Step of the weights that early stopping exports, or None for the current ones."""
        best = self.trainer.state.best
        if self.plan.early_stop.patience is None or best is None or best["step"] == self.trainer.state.step:
            return None
        step = int(best["step"])
        damage = self.processes.broadcast(verify(self.checkpoints.path(step)) if self.processes.first else None)
        if damage is not None:
            self.display.say(f"the best weights, of step {step:,}, are not there ({damage}): the last are exported")
            return None
        return step

    def _summary(self, status: str) -> dict[str, Any]:
        whole = summary_of(self.trainer, status, self.validator.baseline, self.precision)
        tasks = self.plan.mix.tasks
        parts = [loss.rpartition("/") for loss in self.trainer.losses]
        guesses = {f"{task}/{term}": guess(tasks[task].objective, term) for task, _, term in parts}
        return whole | self.validator.summary() | {"machine": self.machine, "baseline_is": guesses}
