"""Two runs side by side: settings, metrics, costs and versions that differ, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.table import Table
from rich.text import Text

from lmctl.compare.comparison import Comparison
from lmctl.compare.run import COSTS, Metric, Run
from lmctl.compare.table import SHOWN, metric_text
from lmctl.train.display import console, print_whole

WIDEST_VALUE = 60
"""Longer values of settings are cut in the middle."""


def print_pair(comparison: Comparison) -> None:
    """Print what differs between the two runs of a comparison."""
    first, second = comparison.runs
    out = console()
    for title, rows in (
        ("settings that differ", list(differing(first.config, second.config))),
        ("metrics; in brackets the 95 % interval over validation rows", list(_metrics(comparison, first, second))),
        ("costs", list(_costs(first, second))),
        ("versions and machine that differ", list(differing(first.environment, second.environment))),
    ):
        if rows:
            out.print(Text(f"\n{title}"))
            print_whole(table := _table((first.name, second.name), rows), table)
    if first.config and first.config == second.config:
        out.print(Text("\nboth have the same config"))


def differing(first: Mapping[str, str], second: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """The keys whose values differ, with both; "-" where a run has no such key."""
    for key in dict.fromkeys([*first, *second]):
        if first.get(key) != second.get(key):
            yield key, _short(first.get(key, "-")), _short(second.get(key, "-"))


def _short(value: str) -> str:
    half = WIDEST_VALUE // 2 - 2
    return value if len(value) <= WIDEST_VALUE else f"{value[:half]}...{value[-half:]}"


def _metrics(comparison: Comparison, first: Run, second: Run) -> Iterator[tuple[str, ...]]:
    for name, about in comparison.metrics.items():
        values = [run.metrics.get(name) for run in (first, second)]
        shown = []
        for run, value in zip((first, second), values, strict=True):
            pair = run.intervals.get(name)
            shown.append("-" if value is None else metric_text(about, value) + _between(about, pair))
        a, b = values
        change = "" if a is None or b is None else f"{'+' if b > a else ''}{metric_text(about, b - a)}"
        yield name, shown[0], shown[1], change


def _between(about: Metric, pair: tuple[float, float] | None) -> str:
    """An interval in brackets, a digit shorter than the value, so that two of them fit into 80 columns."""
    if pair is None:
        return ""
    low, high = pair
    return f" ({100 * low:.1f} to {high:.1%})" if about.share else f" ({low:.3f} to {high:.3f})"


def _costs(first: Run, second: Run) -> Iterator[tuple[str, ...]]:
    for key, name in COSTS.items():
        a, b = first.costs.get(key), second.costs.get(key)
        if a or b:
            shown = ["-" if value is None else SHOWN[key](value) for value in (a, b)]
            yield name, shown[0], shown[1], f"x {b / a:.3g}" if a and b else ""


def _table(names: tuple[str, str], rows: list[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    changes = len(rows[0]) > 3
    for title in ("", *names, *(["difference"] if changes else [])):
        table.add_column(title, overflow="fold", justify="right" if title and changes else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
