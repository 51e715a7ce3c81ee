"""The runs below a folder that were submitted to a cluster, and their states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from lmctl.core.paths import Paths
from lmctl.core.run_summary import RunSummary
from lmctl.jobs.job_state import JobRecord, state_of
from lmctl.train.display import console, print_whole

DEPTH = 3
"""How many folders below the given one are looked into."""


@dataclass(frozen=True)
class Submitted:
    """One submitted run."""

    run: Path
    job: JobRecord
    state: str
    """The job's state, in Slurm's words; GONE if the cluster has forgotten it."""
    summary: RunSummary

    def as_dict(self) -> dict[str, Any]:
        return {
            "run": str(self.run),
            "job": self.job.id,
            "cluster": self.job.cluster,
            "state": self.state,
            "status": self.summary.status,
            "steps": self.summary.steps,
            "loss": self.summary.loss,
        }


def submitted_in(folder: Path, depth: int = DEPTH) -> Iterator[Submitted]:
    """The submitted runs in `folder` and below it, by name."""
    paths = Paths(folder)
    if (job := JobRecord.read(paths)) is not None:
        yield Submitted(folder, job, state_of(job), RunSummary.of(paths))
    elif depth and not paths.config.exists():
        for below in sorted(one for one in folder.iterdir() if one.is_dir() and not one.is_symlink()):
            yield from submitted_in(below, depth - 1)


def print_jobs(jobs: Sequence[Submitted]) -> None:
    """Print them as a table."""
    if not jobs:
        console().print("no run here was submitted to a cluster (runner=slurm)")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", overflow="fold", no_wrap=True)
    for column in ("job", "state", "record"):
        table.add_column(column, no_wrap=True)
    for column in ("steps", "valid loss"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in jobs:
        steps, loss = one.summary.steps, one.summary.loss
        cells = (one.run, one.job.id, one.state, one.summary.status or "", "" if steps is None else f"{steps:,}")
        table.add_row(*(Text(str(cell)) for cell in cells), Text("" if loss is None else f"{loss:.4f}"))
    print_whole(table, table)
