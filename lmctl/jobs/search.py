"""`lmctl search`: Optuna proposes settings, each trial is a run of `train` in a process and a directory of its own.

The study is recorded in the search's folder, so the same command goes on: trials that were interrupted resume, and
what is proposed depends on the trials so far and the seed alone. A trial that is worse than the others at the same step
is stopped as by Ctrl-C: it saves, and `lmctl resume` would go on with it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmctl.compare.comparison import Reader
from lmctl.compare.importance import importance_lines, study_in
from lmctl.compare.live import LivePage
from lmctl.compare.page import FILE
from lmctl.config.search_schema import SearchConfig
from lmctl.core.command_words import command
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import ConfigError, Exit, LmctlError
from lmctl.core.files import write_json
from lmctl.core.paths import Paths
from lmctl.core.regular_files import read_bytes
from lmctl.core.run_summary import numbers
from lmctl.core.suggest import did_you_mean
from lmctl.core.terminal import tell
from lmctl.jobs.job import POLL_SECONDS, Job, Slots, forwarding_signals
from lmctl.jobs.search_space import Axis, fingerprint, title_of, words_of
from lmctl.jobs.sweep_table import print_table

RECORD_BYTES = 64 << 20
"""A longer metrics.jsonl is not read."""
SPACE = "space"
"""Attribute of a study with what it searches."""


class SearchStopped(LmctlError):
    """A signal stopped the search; its trials have saved."""

    code = Exit.STOPPED


@dataclass
class Trial:
    """A proposal of Optuna's, and its run."""

    asked: Any
    """Optuna's trial."""
    job: Job
    reported: set[int] = field(default_factory=set)
    """Steps of the validations that Optuna knows."""
    pruned: bool = False
    read: int = 0
    """Size of the record when it was last read."""

    def report(self, metric: str) -> bool:
        """Tell Optuna of validations that were recorded since the last time; returns whether to stop it early.
        ConfigError if they have no such metric: every validation has all of them, so the first one tells."""
        for step, figures in self._validations():
            if metric not in figures:
                raise _no_such_metric(metric, [name for name in figures if name == "loss" or "/" in name])
            value = numbers(figures).get(metric)  # none where it is not finite
            if value is not None and step not in self.reported:
                self.reported.add(step)
                self.asked.report(value, step)
                if self.asked.should_prune():
                    return True
        return False

    def _validations(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Step and metrics of each validation in the record, if that has changed; their names are those of the summary,
        `TASK/TERM` for the record's `loss/TASK/TERM`."""
        file = Paths(Path(self.job.run_dir)).metrics
        try:
            size = os.stat(file).st_size
            data = b"" if size == self.read else read_bytes(file, RECORD_BYTES)
        except OSError:
            return
        self.read = size
        for line in data.splitlines():
            try:
                found = json.loads(line)
            except ValueError:  # its last line may be half written
                continue
            match found:
                case {"split": "valid", "step": int(step)}:
                    yield step, {name.removeprefix("loss/"): value for name, value in found.items()}


def _no_such_metric(metric: str, known: Sequence[str]) -> ConfigError:
    return ConfigError(f"metric={metric}: a trial has no such metric{did_you_mean(metric, known)}")


class Search:
    """All trials of one search."""

    def __init__(
        self,
        config: SearchConfig,
        folder: Path,
        axes: Sequence[Axis],
        fixed: Sequence[str],
        command_of: Callable[[Job], list[str]],
    ) -> None:
        """`fixed`: overrides of all trials. `command_of`: the command that starts a trial's job."""
        self.config, self.folder, self.axes, self.fixed = config, folder, axes, list(fixed)
        self.command_of = command_of
        self.jobs = list[Job]()
        self.page = LivePage(Reader([str(folder)]), f"Search: {folder.name}", folder / FILE, tell)
        self.space = {axis.key: axis.distribution() for axis in axes}
        folder.mkdir(parents=True, exist_ok=True)
        direction = "maximize" if config.maximize else "minimize"
        self.study = study_in(folder, self._sampler(0), self._pruner(), create=direction)
        self._check_same(direction)

    def _check_same(self, direction: str) -> None:
        """ConfigError if the folder has another search."""
        same = fingerprint(self.axes, self.fixed, f"{direction} {self.config.metric}")
        before = self.study.user_attrs.get(SPACE)
        if before is None:
            self.study.set_user_attr(SPACE, same)
        elif before != same:
            raise ConfigError(f"{self.folder} holds a search with other settings", "choose another name=...")

    def _sampler(self, number: int) -> Any:
        """The sampler for trial `number`: its proposals depend on the trials so far and the seed only."""
        from optuna.samplers import RandomSampler, TPESampler

        seed = int(CounterRng(self.config.seed, "search").generator(0, number).integers(1 << 32))
        return RandomSampler(seed=seed) if self.config.sampler == "random" else TPESampler(seed=seed)

    def _pruner(self) -> Any:
        from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

        kinds = {"median": MedianPruner, "hyperband": HyperbandPruner, "none": NopPruner}
        first = {"n_startup_trials": self.config.prune_after} if self.config.pruner == "median" else {}
        return kinds[self.config.pruner](**first)

    def run(self) -> None:
        """Run all trials that are not done; prints the table, the best one and the importance of settings."""
        waiting = self._unfinished()
        slots, began = Slots(self.config.at_once, self.config.gpus_per_trial), time.monotonic()
        running, processes = list[Trial](), list[Job]()
        with forwarding_signals(processes) as stops:
            try:
                while True:
                    while len(running) < slots.jobs and not stops and (trial := self._next(waiting, began)):
                        self._start(trial, slots)
                        running.append(trial)
                        processes.append(trial.job)
                    if not running:
                        break
                    for trial in list(running):
                        if trial.job.poll():
                            running.remove(trial)
                            processes.remove(trial.job)
                            slots.give(trial.asked.number)
                            self._ended(trial)
                        elif not trial.pruned and trial.report(self.config.metric):
                            trial.pruned = True
                            trial.job.send(signal.SIGTERM)
                    self.page.write_if_due()
                    time.sleep(POLL_SECONDS)
            finally:
                for trial in running:  # only after an exception in this function
                    trial.job.send(signal.SIGTERM)
        self._conclude(bool(stops))

    def _unfinished(self) -> list[Trial]:
        """Trials that an earlier start of this search began and did not end; the others' jobs are recorded again."""
        import optuna
        from optuna.trial import TrialState

        words = {TrialState.COMPLETE: "completed", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
        found = []
        for frozen in self.study.get_trials():
            job = self._job(frozen.number, frozen.params)
            self.jobs.append(job)
            if frozen.state == TrialState.RUNNING:
                known = set(frozen.intermediate_values)
                found.append(Trial(optuna.trial.Trial(self.study, frozen._trial_id), job, known))
            else:
                job.status, job.error = words.get(frozen.state, "failed"), frozen.user_attrs.get("error")
                job.seconds = frozen.user_attrs.get("seconds")
        return found

    def _next(self, waiting: list[Trial], began: float) -> Trial | None:
        """An interrupted trial, or a new one if there are to be more."""
        limit = self.config.limit_minutes
        if waiting:
            return waiting.pop(0)
        if len(self.jobs) >= self.config.trials or (limit is not None and time.monotonic() > began + 60 * limit):
            return None
        self.study.sampler = self._sampler(len(self.jobs))
        asked = self.study.ask(self.space)
        job = self._job(asked.number, asked.params)
        self.jobs.append(job)
        return Trial(asked, job)

    def _job(self, number: int, values: dict[str, Any]) -> Job:
        name = re.sub(r"[^\w.=,+-]", "_", f"{number:04d},{title_of(self.axes, values)}")[:100]
        return Job(name, [*self.fixed, *words_of(self.axes, values)], str(self.folder / name))

    def _start(self, trial: Trial, slots: Slots) -> None:
        self._say(trial, f"started, log: {trial.job.log}")
        trial.job.start(self.command_of(trial.job), slots.take(trial.asked.number))
        self._record()

    def _ended(self, trial: Trial) -> None:
        """Tell Optuna how a trial ended; one that a signal stopped stays open."""
        from optuna.trial import TrialState

        job = trial.job
        value = job.summary.valid.get(self.config.metric) if job.status == "completed" else None
        if job.status != "stopped":
            trial.asked.set_user_attr("seconds", job.seconds)
        if job.status == "completed":
            self._check_metric(job, value)
            trial.report(self.config.metric)
            self.study.tell(trial.asked, value)
        elif trial.pruned and job.status == "stopped":
            trial.asked.set_user_attr("seconds", job.seconds)
            job.status, job.error = "pruned", None
            self.study.tell(trial.asked, state=TrialState.PRUNED)
        elif job.status == "failed":
            trial.asked.set_user_attr("error", job.error)
            self.study.tell(trial.asked, state=TrialState.FAIL)
        self._say(trial, job.outcome() + ("" if value is None else f", {self.config.metric} {value:.4f}"))
        self._record()

    def _check_metric(self, job: Job, value: float | None) -> None:
        """ConfigError for a metric that runs do not have, or that is searched in the wrong direction."""
        if value is None:
            raise _no_such_metric(self.config.metric, list(job.summary.valid))
        higher = job.summary.about_metrics.get(self.config.metric, {}).get("higher_is_better")
        if higher is not None and higher != self.config.maximize:
            raise ConfigError(
                f"metric={self.config.metric} is better when it is {'higher' if higher else 'lower'}",
                f"maximize={str(higher).lower()}, with another name=...",
            )

    def _say(self, trial: Trial, words: str) -> None:
        print(f"[{trial.asked.number + 1}/{self.config.trials}] {trial.job.name}: {words}", flush=True)

    def _record(self) -> None:
        write_json(Paths(self.folder).summary, [job.record() for job in self.jobs])

    def _conclude(self, stopped: bool) -> None:
        """Print what was found. SearchStopped after a signal, LmctlError if no trial completed."""
        self._record()
        print_table(self.jobs)
        for line in importance_lines(self.folder):
            print(line, flush=True)
        if self.page.write() is not None:
            print(f"page with curves and effects: {self.page.file}", flush=True)
        if not any(job.status == "completed" for job in self.jobs):
            raise SearchStopped("stopped", AGAIN) if stopped else LmctlError("no trial completed")
        best = self.study.best_trial
        job = self.jobs[best.number]
        print(f"best: {job.name}, {self.config.metric} {best.value:.4f}, in {job.run_dir}", flush=True)
        print(f"  {command('lmctl train', *job.overrides)}", flush=True)
        if stopped:
            raise SearchStopped(f"stopped after {len(self.jobs)} of {self.config.trials} trials", AGAIN)


AGAIN = "everything is saved; the same command goes on"
