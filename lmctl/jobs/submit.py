"""Submitting a run to a cluster (`runner=slurm`), through submitit: one job of one or several nodes.

The job runs the same command with `resume=auto`, on each node once; its own launcher starts the processes there. A job
whose time is over, or that is preempted, saves and is queued again, and goes on. Nothing that submitit pickles is read
by lmctl: states are asked of Slurm.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from lmctl.core import child_process
from lmctl.core.command_words import command, setting
from lmctl.core.errors import ConfigError, Exit, LmctlError
from lmctl.core.files import write_json
from lmctl.core.paths import Paths
from lmctl.jobs.job_state import ENDED, JobRecord, state_of
from lmctl.runner.slurm import IN_JOB, Slurm

if TYPE_CHECKING:
    from lmctl.plan import Plan

RESTARTS = 1000
"""How often a job may be queued again because its time was over."""
SAVING_SECONDS = 300
"""How long before the end of its time a job is told to save."""
SIGNAL = "SUBMITIT_PREEMPT_SIGNAL"
"""Environment variable with the signal that says a job must end. Every process of the job gets it, and submitit's USR2
would kill those of the run."""
FIRST_PORT, PORTS = 20000, 20000
"""Ports at which the nodes of a job meet, one of them by its number."""


def submit(plan: Plan, paths: Paths, say: Callable[[str], None]) -> None:
    """Submit the command that this process was started with as a job, unless its job is waiting or running already."""
    runner = plan.runner
    assert isinstance(runner, Slurm)
    if (known := JobRecord.read(paths)) is not None and (state := state_of(known)) not in ENDED:
        say(f"job {known.id} of {paths.root} is there already: {state}")
        return
    job = _submitted(_executor(runner, paths, str(plan.name)), words_of(paths, str(plan.name)))
    paths.root.mkdir(parents=True, exist_ok=True)
    write_json(paths.job, JobRecord(str(job.job_id), runner.cluster).as_dict())
    say(f"submitted as job {job.job_id}: {runner.nodes} x {runner.processes or 1}; its output: {paths.submitted}")
    ending = f"   end it: scancel {job.job_id}" if runner.cluster == "slurm" else ""
    say(f"  states: {command('lmctl jobs', runs=paths.root)}{ending}")
    if runner.cluster == "debug" and (code := job.result()):
        raise JobFailed(code)


class JobFailed(LmctlError):
    """The run of a job that was waited for; it has printed its error."""

    def __init__(self, code: int) -> None:
        super().__init__("")
        self.code = Exit(code) if code in set(Exit) else Exit.FAILED


def words_of(paths: Paths, name: str) -> list[str]:
    """This command's words for the job, which goes on where an earlier start of it ended."""
    own = {"resume": "resume=auto", "run_dir": setting("run_dir", str(paths.root.absolute()))}
    given = [word for word in sys.argv[1:] if word != "--resume"]
    words = [word for word in given if "=" not in word or word.partition("=")[0] not in own]  # `lmctl resume RUN` stays
    named = [] if any(word.startswith("name=") for word in words) else [setting("name", name)]
    return [*words, *own.values(), *named]


def _executor(runner: Slurm, paths: Paths, name: str) -> Any:
    os.environ[SIGNAL] = "USR1"  # submitit reads it when it is imported, here and in the job
    import submitit

    options: dict[str, Any] = {
        "name": name,
        "timeout_min": runner.minutes,
        "nodes": runner.nodes,
        "tasks_per_node": 1,
        "gpus_per_node": 0 if runner.on_cpu() else runner.processes or 1,
        "cpus_per_task": runner.cpus,
        "mem_gb": runner.memory_gib,
        "slurm_partition": runner.partition,
        "slurm_account": runner.account,
        "slurm_qos": runner.qos,
        "slurm_signal_delay_s": min(SAVING_SECONDS, runner.minutes * 20),
        "slurm_setup": [f"export {SIGNAL}=USR1", *runner.setup],
        "slurm_additional_parameters": {"requeue": True, **runner.sbatch},
    }
    try:
        restarts: dict[str, Any] = {f"{runner.cluster}_max_num_timeout": RESTARTS} if runner.cluster != "debug" else {}
        executor = submitit.AutoExecutor(folder=paths.submitted, cluster=runner.cluster, **restarts)
        executor.update_parameters(**{key: value for key, value in options.items() if value is not None})
    except RuntimeError as error:
        raise ConfigError(
            f"runner=slurm: {' '.join(str(error).split())}", "submit on a machine of the cluster, or runner=ddp here"
        ) from None
    return executor


def _submitted(executor: Any, words: Sequence[str]) -> Any:
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        return executor.submit(Command(tuple(words), os.getcwd()))
    except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"sbatch refuses the job: {said[said.find('sbatch: ') :][:300]}") from None


@dataclass
class Command:
    """What a job runs on each of its nodes; submitit calls it, and `checkpoint` when the job must end."""

    words: tuple[str, ...]
    folder: str
    process: subprocess.Popen[bytes] | None = None
    """The run's launcher on this node."""

    def __call__(self) -> int:
        signal.signal(signal.SIGTERM, self._save)
        environment = {**os.environ, **child_process.environment(), **self.of_the_node()}
        self.process = subprocess.Popen(
            child_process.command(*self.words), cwd=self.folder, env=environment, start_new_session=True
        )
        self._wait()
        code = self.process.wait()
        if code == Exit.STOPPED and os.environ.get("SLURM_JOB_ID"):
            # Slurm preempts or cancels the job, and decides what becomes of it if it is still there.
            time.sleep(SAVING_SECONDS)
        if code:
            raise SystemExit(code)
        return code

    def of_the_node(self) -> dict[str, str]:
        """Environment variables with this node's number and where the nodes meet."""
        from submitit import JobEnvironment

        own = {IN_JOB: "1"}
        if not os.environ.get("SLURM_JOB_ID"):
            return own
        job = JobEnvironment()
        port = FIRST_PORT + int(job.raw_job_id) % PORTS
        return own | {"NODE_RANK": str(job.node), "MASTER_ADDR": _address(job.hostnames[0]), "MASTER_PORT": str(port)}

    def _wait(self) -> None:
        """Wait for the run's end. `Popen.wait` takes a lock, at which a signal handler would wait forever."""
        if self.process is not None and self.process.returncode is None:
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)

    def _save(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal on. Slurm sends it to every process of the job: the same once more is the same wish."""
        if self.process is None or self.process.returncode is not None:
            raise SystemExit(Exit.STOPPED)
        os.kill(self.process.pid, number)

    def checkpoint(self) -> Any:
        """Have the run save and end; returns what the job runs when it is started again."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None and self.process.returncode is None:
            self._save(signal.SIGUSR1, None)
            self._wait()
        return DelayedSubmission(Command(self.words, self.folder))


def _address(first: str) -> str:
    """Where the `first` node of a job is reached: its name, or where that is only Slurm's, the address of the node that
    starts the job's tasks, which is the first."""
    try:
        socket.getaddrinfo(first, None)
    except OSError:
        return os.environ.get("SLURM_LAUNCH_NODE_IPADDR", first)
    return first
