"""One job: `lmctl VERB` as a process of its own, with its log and its outcome."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from lmctl.core import child_process, signals
from lmctl.core.errors import ConfigError, Exit, LmctlError
from lmctl.core.files import disk_error
from lmctl.core.paths import Paths
from lmctl.core.regular_files import open_to_append, read_bytes, read_json
from lmctl.core.run_summary import RunSummary

POLL_SECONDS = 0.1
"""Polling interval for the end of a job."""
LOG_BYTES = 64 << 20
"""A longer log is not searched for its error."""


def alone_in(folder: Path) -> AbstractContextManager[None]:
    """Context in which no other command writes into the directory of a sweep or of stages."""
    from lmctl.train.run_record import locked  # here, because a single run and a mistake do not need it

    return locked(Paths(folder))


def refuse_single_run(folder: Path, several: str) -> None:
    """ConfigError if `folder` is the directory of a single run, where `several` runs are to go."""
    if Paths(folder).config.exists():
        raise ConfigError(f"{folder} holds a single run, so no {several} can go there", "choose another name=...")


@dataclass
class Job:
    """`lmctl VERB` with its own overrides, in its own process and directory."""

    name: str
    overrides: list[str]
    run_dir: str
    status: str = "not started"
    code: int | None = None
    error: str | None = None
    seconds: float | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    began: float = 0.0
    forwarded: set[int] = field(default_factory=set, repr=False)
    """Signals that were forwarded to it."""

    @property
    def log(self) -> Path:
        return Paths(Path(self.run_dir)).log

    @property
    def summary(self) -> RunSummary:
        """The job's own summary.json."""
        return RunSummary.of(Paths(Path(self.run_dir)))

    @property
    def figures(self) -> dict[str, dict[str, Any]]:
        """Metrics of `lmctl eval` by suite and name, or {}."""
        found = read_json(self.results)
        suites = found.items() if isinstance(found, dict) else ()
        return {suite: figures for suite, figures in suites if isinstance(figures, dict)}

    @property
    def results(self) -> Path:
        """The default path of `lmctl eval`'s results."""
        return Paths(Path(self.run_dir)).results

    def refuse(self, error: LmctlError) -> None:
        """Mark it as refused: it is not legal and is not started."""
        self.status, self.code, self.seconds = "refused", int(error.code), None
        self.error = f"{error} ({error.hint})" if error.hint else str(error)

    def adopt(self, row: dict[str, Any] | None) -> None:
        """Restore the outcome that an earlier run of the sweep recorded, if it is the same job."""
        overrides = None if row is None else row.get("overrides")
        if row is None or not isinstance(overrides, list) or sorted(map(str, overrides)) != sorted(self.overrides):
            return
        status, code, error, seconds = (row.get(name) for name in ("status", "code", "error", "seconds"))
        self.status = status if isinstance(status, str) and status != "running" else self.status
        self.code = code if isinstance(code, int) else None
        self.error = error if isinstance(error, str) else None
        self.seconds = seconds if isinstance(seconds, int | float) else None

    def start(self, command: Sequence[str], environment: dict[str, str], live: bool = False) -> None:
        """Run `command`, with its output in the log or, with `live`, on the terminal. It has its own session, so that
        the terminal's Ctrl-C does not reach it twice."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.status, self.code, self.error, self.seconds = "running", None, None, None
        self.began = time.monotonic()
        with nullcontext() if live else self._opened_log() as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=None if live else subprocess.STDOUT,
                env={**os.environ, **child_process.environment(), **environment},
                start_new_session=True,
            )

    def _opened_log(self) -> BinaryIO:
        try:
            return open_to_append(self.log)
        except OSError as error:
            raise disk_error(self.log, error) from error

    def send(self, number: int) -> None:
        """Forward a signal."""
        if self.process is not None and self.process.poll() is None:
            self.forwarded.add(number)
            self.process.send_signal(number)

    def poll(self) -> bool:
        """Whether the job has ended; its outcome is then recorded."""
        code = self.process.poll() if self.process is not None else None
        if code is None:
            return False
        self.seconds = round(time.monotonic() - self.began, 1)
        self.code = code
        if code == Exit.DONE:
            waits = Paths(Path(self.run_dir)).job.exists() and not self.summary.is_complete
            self.status = "submitted" if waits else "completed"
        elif code == Exit.STOPPED:
            self.status, self.error = "stopped", "everything saved"
        elif -code in self.forwarded or (code == Exit.INTERRUPTED and self.forwarded):
            self.status, self.error = "stopped", "it had not begun, so nothing had to be saved"
        else:
            self.status = "failed"
            self.error = f"killed by {signal.Signals(-code).name}" if code < 0 else self._last_error()
        return True

    def wait(self) -> None:
        """Wait until it has ended."""
        while not self.poll():
            time.sleep(POLL_SECONDS)

    def outcome(self) -> str:
        """The outcome of the job as half a line of text."""
        words = f"{self.status} after {self.seconds} s"
        return f"{words}: {self.error}" if self.error else words

    def _last_error(self) -> str:
        try:
            lines = read_bytes(self.log, LOG_BYTES).decode(errors="replace").splitlines()
        except OSError:
            return f"exit code {self.code}"
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return errors[-1] if errors else f"exit code {self.code}, see {self.log}"

    def record(self) -> dict[str, Any]:
        """The job's entry in the sweep's summary.json."""
        return {
            "name": self.name,
            "overrides": self.overrides,
            "run_dir": self.run_dir,
            "status": self.status,
            "code": self.code,
            "error": self.error,
            "seconds": self.seconds,
            "summary": dict(self.summary.written),
        }


def finished(job: Job) -> bool:
    """Whether this job completed in an earlier run of the sweep, or on the cluster since then."""
    if job.status == "submitted" and job.summary.is_complete:
        job.status, job.error = "completed", None
    return job.status == "completed" and job.summary.is_complete


@contextmanager
def forwarding_signals(running: Sequence[Job]) -> Iterator[list[int]]:
    """Context manager: forward stop signals to the jobs in `running`; yields the list of received signals."""
    stops: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        stops.append(number)
        for job in running:
            job.send(number)

    with signals.handled_by(pass_on):
        yield stops


def run_alone(job: Job, command: Sequence[str], running: list[Job], stops: Sequence[int]) -> None:
    """Run one job to its end, with its output on the terminal; `running` and `stops` are those of
    `forwarding_signals`."""
    job.start(command, {}, live=True)
    running[:] = [job]
    for number in stops:  # received before the process started
        job.send(number)
    job.wait()
    running.clear()


def exit_code_of(job: Job) -> Exit:
    """The exit code of the command if `job` did not complete."""
    if job.status == "stopped" and job.code != Exit.STOPPED:
        return Exit.INTERRUPTED  # perhaps in its last moment, when Python has dropped its handlers
    return Exit(job.code) if job.code in set(Exit) else Exit.FAILED


class Slots:
    """Assigns GPUs and CPU threads to concurrent jobs."""

    def __init__(self, jobs: int, gpus_per_job: int) -> None:
        needed = jobs * gpus_per_job
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = [gpu for gpu in visible.split(",") if gpu] if visible is not None else [str(i) for i in range(needed)]
        if len(gpus) < needed:
            raise ConfigError(
                f"hydra.launcher: {jobs} jobs with {gpus_per_job} GPUs each, and {len(gpus)} GPUs are visible",
                "lower hydra.launcher.n_jobs or hydra.launcher.gpus_per_job",
            )
        self.jobs = jobs
        self.free: list[list[str] | None] = [
            gpus[i * gpus_per_job : (i + 1) * gpus_per_job] if gpus_per_job else None for i in range(jobs)
        ]
        self.taken: dict[int, list[str] | None] = {}

    def take(self, job: int) -> dict[str, str]:
        """Environment variables for a job."""
        gpus = self.taken[job] = self.free.pop(0)
        environment = {} if gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
        if self.jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
            environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // self.jobs))
        return environment

    def give(self, job: int) -> None:
        self.free.append(self.taken.pop(job))
