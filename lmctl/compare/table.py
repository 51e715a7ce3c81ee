"""The table of a comparison, for a terminal, CSV, Markdown and JSON."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from lmctl.compare.comparison import Comparison
from lmctl.compare.run import COSTS, Metric, Run
from lmctl.core.progress import duration
from lmctl.train.display import print_lines, print_whole

MOST_METRICS = 6
"""Columns of metrics on a terminal; all of them are in the other forms."""


@dataclass(frozen=True)
class Column:
    """A column, with the values of all runs."""

    title: str
    values: Sequence[Any]
    show: Callable[[Any], str] = str
    """A value as a person reads it."""
    narrow: bool = True
    """Whether a narrow terminal has it as well."""

    def cells(self) -> list[str]:
        return ["" if value is None else self.show(value) for value in self.values]


def columns(comparison: Comparison, settings: bool = True) -> Iterator[Column]:
    """The columns of a table, with or without the settings that differ."""
    runs = comparison.runs
    yield Column("run", [run.name for run in runs])
    yield Column("status", [run.status for run in runs])
    if settings:
        for axis in comparison.axes:
            yield Column(axis.name, axis.values, narrow=False)
        yield Column("seed", [run.seed for run in runs], narrow=False)
    yield Column("steps", [run.steps for run in runs], lambda steps: f"{steps:,}")
    for name, about in comparison.metrics.items():
        values = [run.metrics.get(name) for run in runs]
        yield Column(name, values, partial(metric_text, about), narrow=name == "loss")
    for cost in comparison.costs:
        values = [run.costs.get(cost) for run in runs]
        if any(values):
            yield Column(COSTS[cost], values, SHOWN[cost], narrow=cost == "seconds")


def metric_text(about: Metric, value: float) -> str:
    """A value of a metric as a person reads it."""
    return f"{value:.2%}" if about.share else f"{value:.4f}"


def _size(value: float) -> str:
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if value >= 1 << (10 * power):
            return f"{value / (1 << (10 * power)):.1f} {unit}"
    return f"{value:.0f} B"


SHOWN: dict[str, Callable[[float], str]] = {
    "seconds": duration,
    "peak_memory_bytes": _size,
    "model_bytes": _size,
    "bytes_sent": _size,
    "tokens": lambda value: f"{value:,.0f}",
}
"""Costs as a person reads them."""


def print_text(comparison: Comparison, metric: str, more: Iterable[str] = ()) -> None:
    """Print the table, means over seeds, effects of settings, what did not complete or cannot be compared, and `more`
    lines."""
    shown = list(columns(comparison, settings=False))
    names = list(comparison.metrics)[:MOST_METRICS]
    few = [column for column in shown if column.title in names or column.title not in comparison.metrics]
    print_whole(_table(few), _table([column for column in few if column.narrow]))
    seeds = over_seeds(metric, list(comparison.over_seeds(metric)))
    for line in [*by_reason(_said(comparison)), *seeds, *_effects(comparison, metric), *more]:
        print_lines([line])


def _table(shown: Sequence[Column]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(shown):
        if place == 0:  # where a terminal is too narrow, names are folded, and figures stay whole
            table.add_column(column.title, overflow="fold")
        else:
            widest = max(map(cell_len, (column.title, *column.cells())))
            table.add_column(column.title, justify="left" if place == 1 else "right", no_wrap=True, min_width=widest)
    for row in zip(*(column.cells() for column in shown), strict=True):
        table.add_row(*map(Text, row))
    return table


def by_reason(said: Iterable[tuple[str, str]]) -> Iterator[str]:
    """A line for each distinct reason, with the runs it is true of; `said` has runs with reasons."""
    found: dict[str, list[str]] = {}
    for name, reason in said:
        found.setdefault(reason, []).append(name)
    for reason, names in found.items():
        yield f"{' and '.join(names) if len(names) < 3 else f'{names[0]} and {len(names) - 1} others'}: {reason}"


def over_seeds(metric: str, cells: Sequence[tuple[str, Sequence[float]]]) -> Iterator[str]:
    """Lines with mean and sample standard deviation (n - 1) of a metric in each cell. Smaller differences are noise."""
    width = max((len(label) for label, _ in cells), default=0)
    if cells:
        yield f"{metric} over seeds, mean and standard deviation:"
    for label, values in cells:
        figures = f"{statistics.mean(values):.4f} +- {statistics.stdev(values):.4f}  ({len(values)} seeds)"
        yield f"  {label:<{width}}  {figures}" if width else f"  {figures}"


def _said(comparison: Comparison) -> Iterator[tuple[str, str]]:
    for place, run in enumerate(comparison.runs):
        yield from ((run.name, reason) for reason in _said_of(run, comparison.apart.get(place)))


def _said_of(run: Run, apart: str | None) -> Iterator[str]:
    if run.reason is not None and not run.is_complete:
        yield f"{run.status}: {run.reason}"
    if apart is not None:
        yield f"not comparable: {apart}"
    yield from run.faults


def _effects(comparison: Comparison, metric: str) -> Iterator[str]:
    several = len(comparison.runs) > 2  # of two, the differences are a table of their own
    effects = comparison.effects(metric) if several and metric in comparison.metrics else []
    width = max((len(f"{effect.axis}={effect.value}") for effect in effects), default=0)
    if effects:
        yield f"effect on {metric}, against the commonest value; in brackets the 95 % interval over seeds:"
    for effect in effects:
        interval = "" if effect.interval is None else " ({:+.4f} to {:+.4f})".format(*effect.interval)
        seeds = f"{effect.seeds} seed{'s' if effect.seeds > 1 else ''}"
        change = f"{effect.difference:+.4f}{interval}"
        yield f"  {f'{effect.axis}={effect.value}':<{width}}  {change}  against {effect.reference}, {seeds}"


def csv_text(comparison: Comparison) -> str:
    """The whole table as CSV, with plain numbers."""
    out = io.StringIO()
    rows = list(columns(comparison))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.title for column in rows] + ["reason"])
    reasons = ["; ".join(_said_of(run, comparison.apart.get(place))) for place, run in enumerate(comparison.runs)]
    for values in zip(*(column.values for column in rows), reasons, strict=True):
        writer.writerow(["" if value is None else value for value in values])
    return out.getvalue()


def markdown_text(comparison: Comparison) -> str:
    """The whole table as Markdown, with numbers as a person reads them."""
    rows = list(columns(comparison))
    marks = ["---:" if any(isinstance(v, int | float) for v in column.values) else "---" for column in rows]
    lines = [[column.title for column in rows], marks, *zip(*(column.cells() for column in rows), strict=True)]
    escaped = ([cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def records(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """A JSON object for each run."""
    for place, run in enumerate(comparison.runs):
        yield {
            "name": run.name,
            "run_dir": str(run.place),
            "status": run.status,
            "reason": run.reason,
            "not_comparable": comparison.apart.get(place),
            "faults": list(run.faults),
            "seed": run.seed,
            "cell": comparison.cells[place],
            "settings": {axis.name: axis.values[place] for axis in comparison.axes},
            "steps": run.steps,
            "metrics": run.metrics,
            "intervals": run.intervals,
            "costs": run.costs,
        }
