"""Sweeps (`-m`): every job in a process of its own, and one table at the end.

Hydra's basic launcher runs all jobs in one process: a job that is killed ends the sweep, memory and Accelerate's global
state leak from job to job, and errors are reported once, at the end. Here a job is `lmctl VERB ...` with a run
directory named by its swept overrides; the same command continues an unfinished sweep.
"""

from __future__ import annotations

import hashlib
import math
import re
import signal
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from lmctl.compare.comparison import Reader
from lmctl.compare.live import LivePage
from lmctl.compare.page import FILE
from lmctl.config.overrides import Override, Overrides
from lmctl.config.schema import ProcessLauncherConfig
from lmctl.config.verb import ConfigVerb
from lmctl.core import child_process
from lmctl.core.command_words import command, setting
from lmctl.core.errors import ConfigError, Exit, LmctlError
from lmctl.core.files import path_of, write_json
from lmctl.core.paths import Paths
from lmctl.core.regular_files import read_json
from lmctl.core.terminal import tell
from lmctl.jobs.job import POLL_SECONDS, Job, Slots, finished, forwarding_signals
from lmctl.jobs.sweep_table import print_table

NOT_FOR_JOBS = ("hydra.sweep", "hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.mode")
"""Prefixes of Hydra overrides about the sweep itself, not passed to its jobs."""


class SweepFailed(LmctlError):
    """Some jobs did not complete; the table has shown which."""

    def __init__(self, jobs: Sequence[Job], stopped: bool) -> None:
        bad = [job for job in jobs if job.status not in ("completed", "submitted")]
        again = "the same command goes on with them"
        if all(job.status == "refused" for job in bad):
            again = "they are not legal: leave them out, or take what is nearest"
        super().__init__(f"{len(bad)} of {len(jobs)} jobs did not complete", again)
        codes = {job.code for job in bad if job.code is not None}
        if stopped:
            self.code = Exit.STOPPED if codes <= {Exit.STOPPED} else Exit.INTERRUPTED
        elif len(codes) == 1 and codes <= set(Exit):
            self.code = Exit(codes.pop())


@dataclass
class Sweep:
    """All jobs of one `lmctl VERB -m`."""

    verb: ConfigVerb
    task: Callable[[DictConfig], None]
    """Runs one job in this process, for other launchers than ours."""
    flags: Sequence[str] = ()
    """Flags before the overrides of every job."""
    free: Container[str] = ()
    """Keys whose values are literal text."""
    refused: Mapping[frozenset[str], LmctlError] = field(default_factory=dict)
    """Errors of the illegal jobs, by their overrides."""
    jobs: list[Job] = field(default_factory=list)
    """All jobs so far; an optimising sweeper launches several batches."""
    page: LivePage | None = None
    """The page of all jobs; None before the first one, and for verbs that measure nothing."""

    def __call__(self, cfg: DictConfig) -> None:
        """The task function that Hydra calls for one job."""
        self.task(cfg)

    def launch(
        self, batch: Sequence[Sequence[str]], folder: Path, slots: Slots, hydras: Sequence[str]
    ) -> Sequence[Job]:
        """Run the jobs with the overrides `batch` below `folder`, concurrently as `slots` allow; SweepFailed if a
        signal stopped them. `hydras` are Hydra overrides for every job."""
        before = recorded(folder)
        named = zip(job_names(batch), batch, strict=True)
        jobs = [Job(name, list(words), str(folder / name)) for name, words in named]
        for job in jobs:
            job.adopt(before.get(job.name))
            if (error := self.refused.get(frozenset(job.overrides))) is not None:
                job.refuse(error)
        self.jobs.extend(jobs)
        if self.page is None and (self.verb.has_run_dir or self.verb.results is not None):
            self.page = LivePage(Reader([str(folder)]), f"Sweep: {folder.name}", folder / FILE, tell)
        if self._run(jobs, folder, slots, hydras):
            self.conclude(stopped=True)
        return jobs

    def conclude(self, stopped: bool = False) -> None:
        """Print the table of all jobs, if any; raise unless all completed."""
        if self.jobs:
            print_table(self.jobs)
        if self.page is not None and self.page.write() is not None:
            print(f"page with curves and effects: {self.page.file}", flush=True)
        if waiting := sum(job.status == "submitted" for job in self.jobs):
            say = "the same command shows what has become of them, and goes on with those that failed"
            print(f"{waiting} of {len(self.jobs)} jobs are with the cluster: {self._states()}\n  {say}", flush=True)
        if any(job.status not in ("completed", "submitted") for job in self.jobs):
            raise SweepFailed(self.jobs, stopped)

    def _states(self) -> str:
        """The command that shows the states of jobs that were submitted to a cluster."""
        return command("lmctl jobs", runs=Path(self.jobs[0].run_dir).parent)

    def command(self, job: Job, hydras: Sequence[str] = ()) -> list[str]:
        """The command that starts `job`."""
        overrides = Overrides.typed(job.overrides)
        words = [self.verb.name, *self.flags, *map(self._typed, overrides)]
        if self.verb.has_run_dir:
            words.append(setting("run_dir", job.run_dir))
            words += [] if "name" in overrides else [setting("name", job.name)]
            words += [] if "resume" in overrides else ["resume=auto"]
        elif self.verb.results is not None and self.verb.results not in overrides:
            words.append(setting(self.verb.results, str(job.results)))  # so that the table can show its metrics
        return child_process.command(*words, *hydras)

    def _typed(self, override: Override) -> str:
        """An override of a job as typed without -m, where literal text has no quotes."""
        return f"{override.key}={override.text}" if override.key in self.free else str(override)

    def _run(self, jobs: Sequence[Job], folder: Path, slots: Slots, hydras: Sequence[str]) -> bool:
        """Run them; returns whether a signal stopped them."""
        places = {id(job): place for place, job in enumerate(jobs, start=1)}

        def say(job: Job, words: str) -> None:
            print(f"[{places[id(job)]}/{len(jobs)}] {job.name}: {words}", flush=True)

        for job in jobs:
            if job.status == "refused":
                say(job, f"refused: {job.error}")
        waiting, running = [job for job in jobs if job.status != "refused"], list[Job]()
        try:
            with forwarding_signals(running) as stops:
                while (waiting and not stops) or running:
                    while waiting and len(running) < slots.jobs and not stops:
                        job = waiting.pop(0)
                        if finished(job):
                            say(job, "already completed")
                            continue
                        say(job, f"started, log: {job.log}")
                        job.start(self.command(job, hydras), slots.take(places[id(job)]))
                        running.append(job)
                        self._record(folder)
                        for number in stops:  # received after the start, before it was in `running`
                            job.send(number)
                    for job in list(running):
                        if job.poll():
                            running.remove(job)
                            slots.give(places[id(job)])
                            say(job, job.outcome())
                            self._record(folder)
                    if self.page is not None:
                        self.page.write_if_due()
                    if running:
                        time.sleep(POLL_SECONDS)
        finally:
            for job in running:  # only after an exception in this function
                job.send(signal.SIGTERM)
        self._record(folder)
        return bool(stops)

    def _record(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(Paths(folder).summary, [job.record() for job in self.jobs])


class ProcessLauncher(Launcher):
    """Hydra launcher `hydra/launcher=process`: starts the jobs of a `Sweep`, which Hydra passes as the task
    function."""

    def __init__(self, n_jobs: int, gpus_per_job: int) -> None:
        self.n_jobs, self.gpus_per_job = n_jobs, gpus_per_job

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        assert isinstance(task_function, Sweep)
        self.sweep, self.folder = task_function, Path(str(config.hydra.sweep.dir))
        self.hydras = [word for word in config.hydra.overrides.hydra if not word.startswith(NOT_FOR_JOBS)]

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        if self.n_jobs < 1:
            raise ConfigError(f"hydra.launcher.n_jobs must be at least 1, got {self.n_jobs}")
        slots = Slots(self.n_jobs, self.gpus_per_job)
        return list(map(_job_return, self.sweep.launch(job_overrides, self.folder, slots, self.hydras)))


def register_launcher() -> None:
    """Register the launcher with Hydra."""
    # Hydra's own `register` uses a class's real name and accepts only classes in the package hydra_plugins, into which
    # lmctl does not install files: so it is registered here under such a name.
    Plugins.instance().class_name_to_class[ProcessLauncherConfig._target_] = ProcessLauncher


def sweep_dir(overrides: Overrides) -> Path:
    """The directory of a sweep: its name, or a hash of its overrides, so that the same command finds it again."""
    if run_dir := overrides.text("run_dir"):
        return path_of(run_dir)
    if name := overrides.text("name"):
        return Path("runs") / name
    return Path("runs") / f"sweep-{_hash(sorted(map(_sorted_values, overrides)))}"


def _sorted_values(override: Override) -> str:
    """An override with its swept values sorted, so that `seed=2,1` is the same sweep as `seed=1,2`."""
    values = override.value or ""
    if re.search(r"[\[({'\"]", values):
        return str(override)
    return str(Override(override.key, ",".join(sorted(values.split(","))), override.sign))


def recorded(folder: Path) -> dict[str, dict[str, Any]]:
    """The recorded jobs of an earlier run of this sweep, by name."""
    rows = read_json(Paths(folder).summary)
    jobs = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return {row["name"]: row for row in jobs if isinstance(row.get("name"), str)}


def job_names(jobs: Sequence[Sequence[str]]) -> list[str]:
    """A directory name for each job, from the overrides in which they differ: `precision=fp32,seed=1`."""
    varying = [sorted(word for word in job if any(word not in other for other in jobs)) for job in jobs]
    names = [re.sub(r"[^\w.=,+-]", "_", ",".join(word.lstrip("+") for word in words)) or "job" for words in varying]
    return [
        name if len(name) <= 100 and names.count(name) == 1 else f"{name[:90]}-{_hash(sorted(job))}"
        for name, job in zip(names, jobs, strict=True)
    ]


def _hash(words: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:8]


def _job_return(job: Job) -> JobReturn:
    """The result for Hydra's sweepers. A failed job must not end the sweep, so it returns nan; an optimising sweeper
    minimises the validation loss."""
    loss = job.summary.valid.get("loss", 0.0) if job.status == "completed" else math.nan
    returned = JobReturn(overrides=job.overrides, working_dir=job.run_dir, status=JobStatus.COMPLETED)
    returned.return_value = loss
    return returned
