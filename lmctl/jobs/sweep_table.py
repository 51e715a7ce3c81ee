"""The results table of a sweep: a row per job, and the standard deviation of the loss over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from lmctl.compare import table
from lmctl.compare.table import by_reason
from lmctl.core.run_summary import RunSummary
from lmctl.jobs.job import Job
from lmctl.train.display import console, print_whole

SEED = "seed="
MOST_FIGURES = 6
"""Maximum number of metric columns; all metrics are in each job's eval.json."""


def print_table(jobs: Sequence[Job]) -> None:
    """Print one row per job, without metrics where the terminal is too narrow; then the errors and, where jobs differ
    by seed, mean and standard deviation over seeds."""
    if any(job.figures for job in jobs):
        print_whole(table := _measured(jobs), table)
    else:
        print_whole(_table(jobs, metrics=True), _table(jobs, metrics=False))
    for line in [*by_reason((job.name, job.error) for job in jobs if job.error), *over_seeds(jobs)]:
        console().print(Text(line))


def _measured(jobs: Sequence[Job]) -> Table:
    """The table of `eval` jobs: a column per metric."""
    found = {job.name: _flat(job.figures) for job in jobs if job.status == "completed"}
    names = list(dict.fromkeys(name for figures in found.values() for name in figures))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("job", overflow="fold", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for name in (*names[:MOST_FIGURES], "seconds"):
        table.add_column(name, justify="right")
    for job in jobs:
        figures = found.get(job.name, {})
        cells = [f"{figures[name]:.4f}" if name in figures else "" for name in names[:MOST_FIGURES]]
        table.add_row(*map(Text, (job.name, job.status, *cells, "" if job.seconds is None else str(job.seconds))))
    return table


def _flat(results: dict[str, Any]) -> dict[str, float]:
    """Metrics by name, with the suite as prefix if there are several; without counts."""
    one = len(results) == 1
    return {
        (name if one else f"{suite} {name}"): value
        for suite, figures in results.items()
        for name, value in figures.items()
        if isinstance(value, float)
    }


def _table(jobs: Sequence[Job], metrics: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("job", overflow="fold", no_wrap=True)
    table.add_column("status", no_wrap=True)
    taught = any(_gap(_summary(job)) for job in jobs)
    for column in ("steps", "valid loss", *(["gap closed"] if taught else []), "bytes/weight", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    if metrics:
        table.add_column("valid")
    for job in jobs:
        summary = _summary(job)
        cells = (
            job.name,
            job.status,
            "" if summary.steps is None else summary.steps,
            "" if summary.loss is None else f"{summary.loss:.4f}",
            *([_gap(summary)] if taught else []),
            "" if summary.bytes_per_parameter is None else f"{summary.bytes_per_parameter:.2f}",
            "" if job.seconds is None else job.seconds,
            *([_metrics(summary)] if metrics else []),
        )
        table.add_row(*(Text(str(cell)) for cell in cells))
    return table


def over_seeds(jobs: Sequence[Job]) -> Iterator[str]:
    """A line for every set of completed jobs that differ in their seed only: mean and sample standard deviation (n - 1)
    of their validation losses. Smaller differences are noise."""
    cells: dict[tuple[str, ...], list[float]] = {}
    for job in jobs:
        loss = _summary(job).loss
        if loss is not None and any(word.startswith(SEED) for word in job.overrides):
            cells.setdefault(tuple(sorted(w for w in job.overrides if not w.startswith(SEED))), []).append(loss)
    cells = {words: losses for words, losses in cells.items() if len(losses) > 1}
    names = [",".join(word for word in words if any(word not in other for other in cells)) for words in cells]
    yield from table.over_seeds("valid loss", list(zip(names, cells.values(), strict=True)))


def _summary(job: Job) -> RunSummary:
    return job.summary if job.status == "completed" else RunSummary()


def _gap(summary: RunSummary) -> str:
    """Share of the loss gap between baseline and teacher that was closed; empty without a comparison."""
    gaps = summary.gap_closed
    return "" if "loss" not in gaps else "no gap" if gaps["loss"] is None else f"{gaps['loss']:.0%}"


def _metrics(summary: RunSummary) -> str:
    """Validation metrics besides the losses: `classify/label_accuracy 0.812`."""
    valid, losses = summary.valid, summary.train
    return ", ".join(f"{name} {value:.3f}" for name, value in valid.items() if name not in losses and name != "loss")
