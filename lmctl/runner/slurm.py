"""Submission to a Slurm cluster. Settings only; `lmctl.jobs.submit` submits, through submitit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional

from lmctl.core.errors import ConfigError
from lmctl.runner.places import Launched

if TYPE_CHECKING:
    from lmctl.plan import Plan

IN_JOB = "LMCTL_IN_JOB"
"""Environment variable of a command that runs inside the job that it was submitted as."""
CLUSTERS = ("slurm", "local", "debug")


@dataclass(frozen=True)
class Slurm(Launched):
    """One job of one or several nodes; inside, the processes are those of `runner=ddp`."""

    processes: Optional[int] = 1
    device: str = field(default="gpu", kw_only=True)
    cluster: str = field(default="slurm", kw_only=True)
    partition: Optional[str] = field(default=None, kw_only=True)
    account: Optional[str] = field(default=None, kw_only=True)
    qos: Optional[str] = field(default=None, kw_only=True)
    minutes: int = field(default=60, kw_only=True)
    cpus: Optional[int] = field(default=None, kw_only=True)
    memory_gib: Optional[float] = field(default=None, kw_only=True)
    setup: list[str] = field(default_factory=list, kw_only=True)
    sbatch: dict[str, Any] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.device == "auto":
            raise ValueError("device must be gpu or cpu: the machine that submits does not know what the nodes have")
        if self.cluster not in CLUSTERS:
            raise ValueError(f"cluster must be one of {', '.join(CLUSTERS)}, got {self.cluster!r}")
        if self.cluster != "slurm" and self.nodes > 1:
            raise ValueError(f"cluster={self.cluster} has one node, got nodes={self.nodes}")
        words = [self.partition, self.account, self.qos, *map(str, self.sbatch.keys()), *map(str, self.sbatch.values())]
        if any(word is not None and not word.isprintable() for word in words):
            raise ValueError("partition, account, qos and sbatch are single lines of printable characters")
        for name, value in (("minutes", self.minutes), ("cpus", self.cpus), ("memory_gib", self.memory_gib)):
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, got {value:g}")

    @property
    def imports(self) -> tuple[str, ...]:
        return ("submitit",)

    def submits(self) -> bool:
        return IN_JOB not in os.environ

    def on_cpu(self) -> bool:
        return self.device == "cpu"

    def per_node(self) -> int:
        """The number of processes of each node; the machine that submits need not have their GPUs."""
        return (self.processes or 1) if self.submits() else super().per_node()

    def check(self, plan: Plan) -> Iterator[ConfigError]:
        yield from super().check(plan)
        if plan.resume not in ("false", "auto"):
            yield ConfigError(
                f"resume={plan.resume}: a job that is started again goes on from the newest checkpoint, not from a "
                "certain one",
                "nearest: resume=auto",
            )
