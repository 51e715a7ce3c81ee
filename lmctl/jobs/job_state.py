"""States of the jobs of a cluster, asked of Slurm itself (`squeue`, `sacct`)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from lmctl.core.paths import Paths
from lmctl.core.regular_files import read_json

GONE = "GONE"
"""The cluster does not know the job any more."""
ENDED = (GONE, "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE",
         "OUT_OF_MEMORY", "REVOKED")  # fmt: skip
"""States in which a job runs no more."""
SECONDS = 30
"""How long a command of Slurm may take."""


@dataclass(frozen=True)
class JobRecord:
    """job.json in a run directory: the newest job that the run was submitted as."""

    id: str
    cluster: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, paths: Paths) -> JobRecord | None:
        """The record of a run directory; None if there is none that can be read."""
        match read_json(paths.job):
            case {"id": str(number), "cluster": str(cluster)} if number.isdecimal() or cluster != "slurm":
                return cls(number, cluster)
        return None


def state_of(job: JobRecord) -> str:
    """Its state in Slurm's words."""
    if job.cluster == "slurm":
        return _first(["squeue", "-h", "-t", "all", "-o", "%T", "-j", job.id]) or _first(
            ["sacct", "-n", "-X", "-o", "State", "-j", job.id]
        ) or GONE  # fmt: skip
    return "RUNNING" if job.id.isdecimal() and _is_submitit(int(job.id)) else GONE


def _first(command: Sequence[str]) -> str | None:
    """The first word that a command prints; None if it is not installed, fails or prints nothing."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None
    words = done.stdout.split() if done.returncode == 0 else []
    return words[0].rstrip("+") if words else None


def _is_submitit(pid: int) -> bool:
    """Whether a process with this number is one of submitit's: numbers are given again."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and any("submitit" in word for word in process.cmdline())
    except psutil.Error:
        return False
