"""`-m`: every job of a sweep in a process of its own, one table at the end.

Hydra's basic launcher runs all jobs in one process: a job that is killed takes the sweep with it, memory and
Accelerate's global state leak from job to job, and what failed is told once, at the end. Here a job is
`lmctl VERB ...` with a run directory named by what varies; the same command goes on with an unfinished sweep.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from lmctl.cli.arguments import key_of
from lmctl.cli.jobs import Job, Slots, finished
from lmctl.cli.sweep_table import print_table
from lmctl.config.schema import ProcessLauncherConfig
from lmctl.core.errors import ConfigError, Exit, LmctlError
from lmctl.core.files import path_of, write_json
from lmctl.core.places import Paths
from lmctl.core.stop import SIGNALS
from lmctl.core.words import read, setting

POLL_SECONDS = 0.1


class SweepFailed(LmctlError):
    """Some jobs did not complete; the table has said which."""

    def __init__(self, jobs: Sequence[Job], stopped: bool) -> None:
        bad = [job for job in jobs if job.status != "completed"]
        again = "the same command goes on with them"
        if all(job.status == "refused" for job in bad):
            again = "they are not legal: leave them out, or take what is nearest"
        super().__init__(f"{len(bad)} of {len(jobs)} jobs did not complete", again)
        codes = {job.code for job in bad if job.code is not None}
        if stopped:
            self.code = Exit.STOPPED if codes <= {Exit.STOPPED} else Exit.INTERRUPTED
        elif len(codes) == 1 and codes <= set(Exit):
            self.code = Exit(codes.pop())


class ProcessLauncher(Launcher):
    """Starts the jobs, `n_jobs` at a time, and waits for them."""

    verb: ClassVar[str] = ""
    flags: ClassVar[Sequence[str]] = ()
    has_run_dir: ClassVar[bool] = True
    free: ClassVar[Sequence[str]] = ()
    """Keys whose values are taken as they are typed."""
    refused: ClassVar[Mapping[frozenset[str], LmctlError]] = {}
    """What is said against the jobs that are not legal, by their overrides."""
    jobs: ClassVar[list[Job]] = []
    """All jobs so far; a sweeper that optimises launches several batches."""

    def __init__(self, n_jobs: int, gpus_per_job: int) -> None:
        self.n_jobs, self.gpus_per_job = n_jobs, gpus_per_job
        self.stops: list[int] = []
        """The signals that asked the sweep to stop."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.folder = Path(str(config.hydra.sweep.dir))
        self.hydra_overrides = [
            word
            for word in config.hydra.overrides.hydra
            if not word.startswith(("hydra.sweep", "hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.mode"))
        ]

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        if self.n_jobs < 1:
            raise ConfigError(f"hydra.launcher.n_jobs must be at least 1, got {self.n_jobs}")
        before = recorded(self.folder)
        jobs = [
            Job(name, list(words), str(self.folder / name))
            for name, words in zip(job_names(job_overrides), job_overrides, strict=True)
        ]
        for job in jobs:
            job.adopt(before.get(job.name))
            if (error := self.refused.get(frozenset(job.overrides))) is not None:
                job.refuse(error)
        ProcessLauncher.jobs.extend(jobs)
        self._run(jobs)
        if self.stops:
            conclude(stopped=True)
        return [_returned(job) for job in jobs]

    def _run(self, jobs: list[Job]) -> None:
        waiting, running = list(enumerate(jobs, start=1)), list[tuple[int, Job]]()
        slots = Slots(self.n_jobs, self.gpus_per_job)

        def pass_on(number: int, frame: FrameType | None) -> None:
            self.stops.append(number)
            for _, job in running:
                job.send(number)

        for place, job in waiting:
            if job.status == "refused":
                print(f"[{place}/{len(jobs)}] {job.name}: refused: {job.error}", flush=True)
        waiting = [(place, job) for place, job in waiting if job.status != "refused"]
        handlers = {number: signal.signal(number, pass_on) for number in SIGNALS}
        try:
            while (waiting and not self.stops) or running:
                while waiting and len(running) < self.n_jobs and not self.stops:
                    place, job = waiting.pop(0)
                    label = f"[{place}/{len(jobs)}] {job.name}"
                    if finished(job):
                        print(f"{label}: already completed", flush=True)
                        continue
                    print(f"{label}: started, log: {job.log}", flush=True)
                    job.start(self._command(job), slots.take(place))
                    running.append((place, job))
                    for number in self.stops:  # it came between the start and the list
                        job.send(number)
                for place, job in list(running):
                    if job.poll():
                        running.remove((place, job))
                        slots.give(place)
                        print(f"[{place}/{len(jobs)}] {job.name}: {job.outcome()}", flush=True)
                        self._record()
                if running:
                    time.sleep(POLL_SECONDS)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for _, job in running:  # only after an error of our own
                job.send(signal.SIGKILL)
        self._record()

    def _command(self, job: Job) -> list[str]:
        words = [sys.executable, "-m", "lmctl", self.verb, *self.flags, *map(self._typed, job.overrides)]
        if self.has_run_dir:
            words.append(setting("run_dir", job.run_dir))
            keys = {key_of(word) for word in job.overrides}
            words += [] if "name" in keys else [setting("name", job.name)]
            words += [] if "resume" in keys else ["resume=auto"]
        elif self.verb == "eval" and not any(key_of(word) == "out" for word in job.overrides):
            words.append(setting("out", str(job.results)))  # so that its figures are in the table
        return [*words, *self.hydra_overrides]

    def _typed(self, word: str) -> str:
        """An override of a job as one would type it without -m: free text has no quotes then."""
        return f"{key_of(word)}={read(word.partition('=')[2])}" if key_of(word) in self.free else word

    def _record(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(Paths(self.folder).summary, [job.record() for job in self.jobs])


def register(verb: str, flags: Sequence[str], has_run_dir: bool, free: Sequence[str] = ()) -> None:
    """Make `hydra/launcher=process` known to Hydra, for jobs that are `lmctl VERB FLAGS overrides...`."""
    ProcessLauncher.jobs = []
    ProcessLauncher.verb, ProcessLauncher.flags, ProcessLauncher.has_run_dir = verb, tuple(flags), has_run_dir
    ProcessLauncher.free, ProcessLauncher.refused = tuple(free), {}
    Plugins.instance().register(ProcessLauncher)
    # Hydra looks the name in the config up in this table, so no package of that name has to exist.
    Plugins.instance().class_name_to_class[ProcessLauncherConfig._target_] = ProcessLauncher


def refuse(cells: Mapping[frozenset[str], LmctlError]) -> None:
    """Jobs that are not to be started, by their overrides, and why."""
    ProcessLauncher.refused = cells


def conclude(stopped: bool = False) -> None:
    """Print the table of the sweep that ran, if one did; raise unless every job completed."""
    jobs = ProcessLauncher.jobs
    if jobs:
        print_table(jobs)
    if any(job.status != "completed" for job in jobs):
        raise SweepFailed(jobs, stopped)


def sweep_dir(overrides: list[str]) -> Path:
    """Where a sweep is written: under its name, or under a name that the same command finds again."""
    values = {key_of(word): word.partition("=")[2] for word in overrides}
    if run_dir := values.get("run_dir"):
        return path_of(read(run_dir))
    if name := values.get("name"):
        return Path("runs") / read(name)
    return Path("runs") / f"sweep-{_hex(sorted(map(_ordered, overrides)))}"


def _ordered(word: str) -> str:
    """An override with its swept values in order, so that `seed=2,1` is the sweep that `seed=1,2` is."""
    key, equals, values = word.partition("=")
    return word if re.search(r"[\[({'\"]", values) else f"{key}{equals}{','.join(sorted(values.split(',')))}"


def recorded(folder: Path) -> dict[str, dict[str, Any]]:
    """The jobs of an earlier run of this sweep, by name."""
    try:
        rows = json.loads(Paths(folder).summary.read_text(encoding="utf-8"))
        return {row["name"]: row for row in rows}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def job_names(jobs: Sequence[Sequence[str]]) -> list[str]:
    """What tells each job from the others, as a directory name: `precision=fp32,seed=1`."""
    varying = [sorted(word for word in job if any(word not in other for other in jobs)) for job in jobs]
    names = [re.sub(r"[^\w.=,+-]", "_", ",".join(word.lstrip("+") for word in words)) or "job" for words in varying]
    return [
        name if len(name) <= 100 and names.count(name) == 1 else f"{name[:90]}-{_hex(sorted(job))}"
        for name, job in zip(names, jobs, strict=True)
    ]


def _hex(words: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:8]


def _returned(job: Job) -> JobReturn:
    """What Hydra's sweepers want to hear. A failed job must not end the sweep, so it returns, and what it returns
    is not a number; a sweeper that optimises minimises the validation loss."""
    loss = (job.summary.get("valid") or {}).get("loss", 0.0) if job.status == "completed" else math.nan
    returned = JobReturn(overrides=job.overrides, working_dir=job.run_dir, status=JobStatus.COMPLETED)
    returned.return_value = loss
    return returned
