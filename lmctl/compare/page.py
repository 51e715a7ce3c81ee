"""The HTML page of a comparison: one file with its data, styles, scripts and uPlot, which asks no network for anything.

Curves are thinned out, numbers are rounded to what a plot can show, and texts of runs are data, never markup.
"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Container, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from lmctl import __version__
from lmctl.compare.axes import differing_keys
from lmctl.compare.comparison import Comparison
from lmctl.compare.curves import Curve
from lmctl.compare.run import COSTS, Run
from lmctl.core.files import write_text
from lmctl.core.json_lines import line_of

FILE = "compare.html"
"""Name of the page of a sweep, in its directory."""
STYLES = ("uPlot-1.6.32.min.css", "page.css")
SCRIPTS = (
    "uPlot-1.6.32.min.js",
    *("numbers.js", "curve_math.js", "tables.js", "plots.js", "run_table.js", "page.js"),
)
LICENCE = "uPlot-LICENSE.txt"


def write_page(comparison: Comparison, title: str, file: Path) -> None:
    """Write the page, whole or not at all; DiskError if it cannot be written."""
    write_text(file, page_of(comparison, title))


def page_of(comparison: Comparison, title: str) -> str:
    """The page as HTML."""
    parts = {
        "title": html.escape(title),
        "version": __version__,
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "styles": "\n".join(map(_text, STYLES)),
        "scripts": "\n".join([f"/*\n{_text(LICENCE)}*/", *map(_text, SCRIPTS)]),
        "data": line_of(_data(comparison)).replace("<", "\\u003c"),  # no `</script>` and no `<!--` inside
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _text("page.html"))


def _text(name: str) -> str:
    return (files("lmctl.compare") / "page_files" / name).read_text(encoding="utf-8")


def _data(comparison: Comparison) -> dict[str, Any]:
    """What the page's scripts read."""
    runs, metrics = comparison.runs, comparison.metrics
    settings = differing_keys(runs)
    shares = comparison.importance.shares if comparison.importance else {}
    machines = _differing([run.environment for run in runs])
    return {
        "counts": comparison.counts,
        "running": comparison.is_running,
        "metrics": [
            {"name": name, "higher": about.higher_is_better, "share": about.share} for name, about in metrics.items()
        ],
        "costs": [{"key": key, "name": COSTS[key], "unit": _unit(key)} for key in comparison.costs],
        "axes": [
            {"name": axis.name, "also": axis.also, "importance": shares.get(axis.name)} for axis in comparison.axes
        ],
        "trials": comparison.importance.trials if comparison.importance else 0,
        "cells": [comparison.label(cell) for cell in range(max(comparison.cells, default=-1) + 1)],
        "fronts": {name: {key: comparison.front(name, key) for key in comparison.costs} for name in metrics},
        "effects": {name: [vars(effect) for effect in comparison.effects(name)] for name in metrics},
        "runs": [
            _run(run, place, metrics)
            | {
                "words": [word.lower() for word in _words(comparison, place)],
                "cell": comparison.cells[place],
                "apart": comparison.apart.get(place),
                "axes": [axis.values[place] for axis in comparison.axes],
                "config": {key: values[place] for key, values in settings.items() if values[place] is not None},
                "environment": {key: run.environment[key] for key in machines if key in run.environment},
            }
            for place, run in enumerate(runs)
        ],
    }


def _run(run: Run, place: int, metrics: Container[str]) -> dict[str, Any]:
    return {
        "place": place,
        "name": run.name,
        "folder": str(run.place),
        "status": run.status,
        "reason": run.reason,
        "faults": run.faults,
        "seed": run.seed,
        "steps": run.steps,
        "known": bool(run.config),
        "metrics": {name: _rounded(value) for name, value in run.metrics.items()},
        "intervals": {name: list(map(_rounded, pair)) for name, pair in run.intervals.items()},
        "costs": {name: _rounded(value) for name, value in run.costs.items()},
        "curves": {"train": _curve(run.curves.train, metrics), "valid": _curve(run.curves.valid, metrics)},
    }


def _words(comparison: Comparison, place: int) -> list[str]:
    """What the filter of the page looks at."""
    run = comparison.runs[place]
    settings = dict(run.overrides)
    settings |= {axis.name: value for axis in comparison.axes if (value := axis.values[place]) is not None}
    settings |= {} if run.seed is None else {"seed": run.seed}
    return [run.name, run.status, *(f"{key}={value}" for key, value in settings.items())]


def _curve(curve: Curve, metrics: Container[str]) -> dict[str, Any]:
    return {
        "at": {name: list(map(_rounded, places)) for name, places in curve.at.items()},
        "values": {
            name: [None if value is None else _rounded(value) for value in values]
            for name, values in curve.values.items()
            if name in metrics
        },
    }


def _rounded(value: float) -> float | int:
    """Six digits: more than a plot of a thousand pixels can show."""
    rounded = float(f"{value:.6g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1 << 53 else rounded


def _unit(cost: str) -> str:
    return "seconds" if cost == "seconds" else "count" if cost == "tokens" else "bytes"


def _differing(records: list[Mapping[str, str]]) -> list[str]:
    keys = dict.fromkeys(key for record in records for key in record)
    return [key for key in keys if len({record.get(key) for record in records if record}) > 1]
