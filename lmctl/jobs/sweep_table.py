"""The end of a sweep on the terminal: a row per job, and what seeds alone do to the loss."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmctl.jobs.job import Job
from lmctl.train.display import print_whole

SEED = "seed="
MOST_FIGURES = 6
"""Columns for what was measured; the rest is in each job's eval.json."""


def print_table(jobs: Sequence[Job]) -> None:
    """One row per job, without the metrics where a terminal is too narrow; below them what went wrong and, where jobs
    differ by seed, mean and standard deviation over seeds."""
    if any(job.figures for job in jobs):
        print_whole(table := _measured(jobs), table)
    else:
        print_whole(_table(jobs, metrics=True), _table(jobs, metrics=False))
    for line in [*_errors(jobs), *over_seeds(jobs)]:
        Console(highlight=False, soft_wrap=True).print(Text(line))


def _errors(jobs: Sequence[Job]) -> list[str]:
    """What went wrong, each thing once, with the jobs it happened to."""
    by_error: dict[str, list[str]] = {}
    for job in jobs:
        if job.error:
            by_error.setdefault(job.error, []).append(job.name)
    return [f"{' and '.join(names) if len(names) < 3 else f'{names[0]} and {len(names) - 1} others'}: {error}"
            for error, names in by_error.items()]  # fmt: skip


def _measured(jobs: Sequence[Job]) -> Table:
    """Of jobs that measured something: a column per figure that they have."""
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
    """Figures by name; with the suite's before it where there are several suites. Counts are left out."""
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
            summary.get("steps", ""),
            "" if (loss := _loss(summary)) is None else f"{loss:.4f}",
            *([_gap(summary)] if taught else []),
            "" if (size := _bytes(summary)) is None else f"{size:.2f}",
            "" if job.seconds is None else job.seconds,
            *([_metrics(summary)] if metrics else []),
        )
        table.add_row(*(Text(str(cell)) for cell in cells))
    return table


def over_seeds(jobs: Sequence[Job]) -> Iterator[str]:
    """A line for every set of completed jobs that differ by nothing but their seed: mean and standard deviation (of a
    sample, n - 1) of their validation losses. What is smaller than the latter is noise."""
    cells: dict[tuple[str, ...], list[float]] = {}
    for job in jobs:
        loss = _loss(_summary(job))
        if loss is not None and any(word.startswith(SEED) for word in job.overrides):
            cells.setdefault(tuple(sorted(w for w in job.overrides if not w.startswith(SEED))), []).append(loss)
    cells = {words: losses for words, losses in cells.items() if len(losses) > 1}
    names = [",".join(word for word in words if any(word not in other for other in cells)) for words in cells]
    width = max(map(len, names), default=0)
    if cells:
        yield "valid loss over seeds, mean and standard deviation:"
    for name, losses in zip(names, cells.values(), strict=True):
        figures = f"{statistics.mean(losses):.4f} +- {statistics.stdev(losses):.4f}  ({len(losses)} seeds)"
        yield f"  {name:<{width}}  {figures}" if width else f"  {figures}"


def _summary(job: Job) -> dict[str, Any]:
    return job.summary if job.status == "completed" else {}


def _loss(summary: dict[str, Any]) -> float | None:
    return (summary.get("valid") or {}).get("loss")


def _gap(summary: dict[str, Any]) -> str:
    """Of the loss between a student alone and its teacher; empty where there was no comparison."""
    gaps = summary.get("gap_closed") or {}
    return "" if "loss" not in gaps else "no gap" if gaps["loss"] is None else f"{gaps['loss']:.0%}"


def _bytes(summary: dict[str, Any]) -> float | None:
    """Of weights, gradients and optimiser states, by weight of the network."""
    return ((summary.get("precision") or {}).get("bytes_per_parameter") or {}).get("total")


def _metrics(summary: dict[str, Any]) -> str:
    """What was measured besides the losses: `classify/label_accuracy 0.812`."""
    valid, losses = summary.get("valid") or {}, summary.get("train") or {}
    return ", ".join(f"{name} {value:.3f}" for name, value in valid.items() if name not in losses and name != "loss")
