"""Training session: the trainer's steps with logging, validation, checkpoints, early stopping and summary."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lmctl.core import heap, progress, signals
from lmctl.core.command_words import command
from lmctl.core.errors import DiskError, Diverged, LmctlError, Stopped
from lmctl.core.files import digest
from lmctl.core.paths import Paths
from lmctl.parallel.machine import machine
from lmctl.train.build_parts import check_kernels
from lmctl.train.checkpoint import Checkpoints
from lmctl.train.checkpoint_copies import at_hand
from lmctl.train.checkpoint_reader import fill, read, verify, weights_of
from lmctl.train.confidence_intervals import guess
from lmctl.train.display import Display
from lmctl.train.export import export, write_template
from lmctl.train.log_window import LogWindow
from lmctl.train.loss_plot import Plotter
from lmctl.train.precision_proof import FirstStep, prove
from lmctl.train.rollback import check_weights, newest, roll_back
from lmctl.train.run_identity import Identity
from lmctl.train.run_record import Record, write_config
from lmctl.train.step import StepReport
from lmctl.train.summary import peak_memory, summary_of
from lmctl.train.trainer import Trainer
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
        self.record = Record(paths, self.plan.tracker, display.say)
        self.checkpoints = Checkpoints.of(paths.checkpoints, self.plan.checkpoint, self.processes)
        self.validator = Validator(trainer)
        self.plotter = Plotter(paths, display.say)
        self.machine = machine(self.processes)
        self.began = False
        self._aside = 0.0
        """Seconds spent outside of training since the trainer last read its clock."""
        self._saved = -1
        self.log = LogWindow(trainer)

    def run(self) -> dict[str, Any]:
        """Train until the budget is spent; returns the contents of summary.json."""
        try:
            with self._not_training():
                self._begin()
            self.display.start()
            while not self._train():
                pass
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

    def _train(self) -> bool:
        """Train to the end of the budget, to a stop or, which returns False, to a rollback."""
        try:
            first: FirstStep | None = FirstStep(self.trainer)
            for report in self.trainer.steps():
                if first is not None and first.complete(report):
                    first = None
                if self._after(report):
                    break
        except Diverged as error:
            with self._not_training():
                self._roll_back(error)
            return False
        return True

    def _roll_back(self, error: Diverged) -> None:
        """Go back to the newest checkpoint after `error`, which is raised again if the config does not say so, or if
        there is none left to go back to."""
        trainer = self.trainer
        if not trainer.guard.rolls_back(error) or len(trainer.state.rollbacks) >= self.plan.max_skips:
            raise error
        self._await(must=False)
        path = newest(self.checkpoints, self.processes, self.display.say)
        if path is None:
            raise error
        with at_hand(path, self.paths.checkpoints, self.processes) as found:
            roll_back(trainer, read(found), str(error))
        self._saved, self.log = trainer.state.window, LogWindow(trainer)
        self.validator.went_back()
        if self.processes.first:
            for line in self.record.begin(self.config, trainer.fingerprints, self.machine, trainer.state):
                self.display.say(line)
        self.display.say(
            f"{error}; back to {path.name}, and on with other rows "
            f"(rollback {len(trainer.state.rollbacks)} of at most {self.plan.max_skips})"
        )

    def _begin(self) -> None:
        trainer, state = self.trainer, self.trainer.state
        self.log = LogWindow(trainer)
        check_kernels(self.plan, self.processes.device, self.display.say)
        before = state.validated
        for line in self.validator.begin():
            self.display.say(line)
        proof = trainer.micro.fitted(lambda: prove(trainer))
        heap.return_unused()  # its blocks are not those of a step
        state.precision = state.precision or proof  # what was proved first stays in the record
        for line in trainer.converted:
            self.display.say(f"precision: {line}")
        for role in ("compute", "proof"):
            self.display.say(f"precision: {role} {proof[role]}")
        if (cost := self.plan.adversary.passes) > 1:
            self.display.say(f"adversary: {type(self.plan.adversary).__name__}, {cost:g} passes per micro-batch")
        for line in trainer.learner.distillation.shown:
            self.display.say(f"distill: {line}")
        if words := trainer.strategy.describe():
            state.precision["reduction"] = words[0]
        for line in (*words, *self.plan.runner.remarks(self.plan)):
            self.display.say(f"compression: {line}")
        if self.processes.first:
            for line in self.record.begin(self.config, trainer.fingerprints, self.machine, state):
                self.display.say(line)
            write_template(self.paths, trainer, renew=state.window == 0)
        elif self.processes.disks.leads:
            write_config(self.paths, self.config)  # so that the same words go on with the run on this node
        self.began = True
        if state.validated is not before:
            self.validator.judge()
            self._write(self.validator.line())
            if self.plan.early_stop.patience is not None or trainer.guard.goes_back:
                self._save()  # the untrained model may turn out to be the best, or the only one to go back to

    def _stop(self) -> None:
        """Save a checkpoint and exit, after a stop signal."""
        self._save(must=True)
        self._await(must=True)
        self.processes.barrier()
        signals.ignore()
        raise Stopped(
            f"{self.trainer.stopped_by} after step {self.trainer.state.step}; everything is saved",
            f"go on with: {command(f'lmctl {self.plan.verb} resume=auto', run_dir=self.paths.root)}\n"
            f"  or use it as it is: {command('lmctl eval', model_path=self.paths.root)}",
        )

    def _after(self, report: StepReport) -> bool:
        """Bookkeeping after one step; returns whether to stop early."""
        progress.beat()
        self.trainer.state.aside_seconds += self._aside
        self._aside = 0.0
        self.log.add(report)
        self._show_notes()
        if self.trainer.state.window % heap.EVERY == 0 and self.processes.device.type == "cpu":
            heap.return_unused()
        state, spent = self.trainer.state, self.trainer.spent()
        done = spent >= 1
        if not report.taken and not done:
            return False
        if self.log and (state.step % self.plan.log.every == 0 or done):
            self._write(self.log.line(report))
        with self._not_training():
            return self._validate_and_save(done, self.validator.is_due(spent))

    def _show_notes(self) -> None:
        """Show what the trainer has to say about steps that went another way than planned."""
        notes = [*self.trainer.micro.notes, *self.trainer.notes]
        self.trainer.micro.notes.clear()
        self.trainer.notes.clear()
        for note in notes:
            self.display.say(note)

    def _validate_and_save(self, done: bool, due: bool) -> bool:
        """Validate and save if due; returns whether to stop early."""
        state, better = self.trainer.state, False
        every, patience = self.plan.checkpoint.every, self.plan.early_stop.patience
        if validated := done or (due and self.validator.trained_enough()):
            better = self.validator.validate()
            self._show_notes()
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
        self._aside += max(0.0, time.monotonic() - began)

    def _write(self, line: dict[str, Any]) -> None:
        if self.processes.first:
            self.record.write(line)
        self.display.step(line, min(1.0, self.trainer.spent()))

    def _save(self, must: bool = False) -> None:
        """Save a checkpoint, unless this window has one. A DiskError ends the run if it `must` be saved, or if the
        config says so; in all processes alike."""
        trainer, state = self.trainer, self.trainer.state
        if self._saved == state.window:
            return
        self.log.check_finite()
        check_weights(trainer)
        state.pending = self.log.pending()
        if self.processes.first:
            state.metrics_bytes, state.metrics_sha256 = self.record.metrics.sync()
        contents = trainer.state_dict() | {"identity": self.identity.state_dict()}
        best = None if state.best is None else int(state.best["step"])
        self._await(must)
        weights = trainer.step.average.tensors()
        with self._bearing(must):
            self.checkpoints.save(state.step, weights, contents, trainer.own_state(), best)
            self._saved = state.window

    def _await(self, must: bool) -> None:
        """Wait for a checkpoint that is being written in the background."""
        with self._bearing(must):
            self.checkpoints.wait()

    @contextmanager
    def _bearing(self, must: bool) -> Iterator[None]:
        """Context in which a DiskError is only said, unless the checkpoint `must` be saved or the config says so."""
        try:
            yield
        except DiskError as error:
            if must or self.plan.checkpoint.on_error == "stop":
                raise
            self.display.say(f"warning: {error}; the run goes on without it")

    def _finish(self) -> dict[str, Any]:
        """Export the final weights, and write the summary with their metrics."""
        trainer, state, validator = self.trainer, self.trainer.state, self.validator
        self._await(must=False)
        trainer.step.average.settle()
        exported = state.step
        if not validator.current:  # stopped before a validation, or resumed with a spent budget
            validator.validate()
            self._write(validator.line())
        if (best := self._best()) is not None:
            exported = best
            with at_hand(self.checkpoints.path(best), self.paths.checkpoints, self.processes) as found:
                fill(trainer.network, weights_of(found), "the best checkpoint")
            validator.measure_step(best)
        elif validator.newest is None:  # the same metrics again, for their intervals
            validator.remeasure()
        summary = self._summary("completed") | {"exported_step": exported}
        summary["tokens_per_cpu_second"] = round(
            state.tokens / self.processes.sum_of_processes([state.cpu_seconds])[0], 1
        )
        summary["peak_memory_bytes"] = int(self.processes.sum_of_processes([peak_memory(self.processes.device)])[0])
        check_weights(trainer)
        export(self.paths, trainer, summary)
        if self.processes.first:
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
        whole = summary_of(self.trainer, status, self.validator.baseline)
        tasks = self.plan.mix.tasks
        parts = [loss.rpartition("/") for loss in self.trainer.losses]
        guesses = {f"{task}/{term}": guess(tasks[task].objective, term) for task, _, term in parts}
        return whole | self.validator.summary() | {"machine": self.machine, "baseline_is": guesses}
