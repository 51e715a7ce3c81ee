"""Learning curves of a run, read from metrics.jsonl and thinned out for a page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmctl.core.regular_files import read_bytes

FILE_BYTES = 256 << 20
"""A longer record is not read."""
LINES_PER_POINT = 4
"""Of a longer record every second, third, ... training line is parsed; validations always are."""
POSITIONS = {"step": "step", "tokens": "tokens", "seconds": "seconds", "bytes_sent": "bytes"}
"""What a curve can be drawn over: the key in metrics.jsonl, and its name here."""
NOT_A_METRIC = (*POSITIONS, "rows", "split")


@dataclass(frozen=True)
class Curve:
    """Values of several metrics at the same points."""

    at: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """step, tokens, seconds and bytes (sent) of each point."""
    values: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    """By metric, named as in summary.json; None where a point has none."""

    def __len__(self) -> int:
        return len(self.at.get("step", ()))


@dataclass(frozen=True)
class Curves:
    """Training and validation curves of one run."""

    train: Curve = field(default_factory=Curve)
    valid: Curve = field(default_factory=Curve)
    last: Mapping[str, float] = field(default_factory=dict)
    """The newest validation, by metric."""
    reached: Mapping[str, float] = field(default_factory=dict)
    """Position of the newest line: step, tokens, seconds, bytes."""
    peak_memory: float | None = None
    """Bytes, of the newest training line."""
    damaged: int = 0
    """Lines that could not be read."""


def read_curves(file: Path, points: int) -> Curves:
    """The curves in a metrics.jsonl; training points are means of neighbours, at most `points` of them, and validations
    are left out evenly. OSError if there is no such file."""
    found = [line for line in read_bytes(file, FILE_BYTES).split(b"\n") if line]
    stride = -(-len(found) // (LINES_PER_POINT * points)) or 1
    train: list[dict[str, Any]] = []
    valid: list[dict[str, Any]] = []
    damaged, sent, reached = 0, 0.0, dict[str, float]()
    for number, text in enumerate(found):
        if number % stride and b'"valid"' not in text and number < len(found) - 2:
            continue
        line = _parsed(text)
        if line is None:
            damaged += 1
            continue
        sent = line["bytes_sent"] = float(line.get("bytes_sent") or sent)  # a validation sends nothing
        (valid if line["split"] == "valid" else train).append(line)
        reached = {name: float(line[key]) for key, name in POSITIONS.items()}
    last = {
        _metric(name): float(value) for name, value in (valid[-1] if valid else {}).items() if _is_figure(name, value)
    }
    peak = train[-1].get("peak_memory_bytes") if train else None
    return Curves(
        _curve(_means(train, points)),
        _curve(_evenly(valid, points)),
        last,
        reached,
        _number(peak),
        damaged,
    )


def _parsed(text: bytes) -> dict[str, Any] | None:
    """A line of ours; None if it is none."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    match line:
        case {"split": "train" | "valid", "step": int(), "tokens": int(), "seconds": float() | int(), **rest}:
            return line if _is_number(rest.get("bytes_sent", 0)) and _is_number(line["seconds"]) else None
    return None


def _metric(name: str) -> str:
    return name.removeprefix("loss/")


def _is_figure(name: str, value: Any) -> bool:
    return name not in NOT_A_METRIC and _is_number(value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _means(lines: Sequence[dict[str, Any]], points: int) -> Iterator[dict[str, Any]]:
    """The lines in groups of neighbours, as the mean of each group, at the position of its last line."""
    size = max(1, -(-len(lines) // max(1, points)))
    losses = [name for name in _names(lines) if name == "loss" or name.startswith("loss/")]
    for begin in range(0, len(lines), size):
        part = lines[begin : begin + size]
        yield {key: part[-1][key] for key in POSITIONS} | {
            name: _mean([line.get(name) for line in part]) for name in losses
        }


def _names(lines: Sequence[dict[str, Any]]) -> list[str]:
    return sorted(set().union(*lines) - {*POSITIONS, *NOT_A_METRIC})


def _mean(values: Iterable[Any]) -> float | None:
    numbers = [float(value) for value in values if _is_number(value)]
    return sum(numbers) / len(numbers) if numbers else None


def _evenly(lines: Sequence[dict[str, Any]], points: int) -> list[dict[str, Any]]:
    """At most `points` of the lines, the first and the last among them."""
    if len(lines) <= max(2, points):
        return list(lines)
    step = (len(lines) - 1) / (max(2, points) - 1)
    return [lines[round(place * step)] for place in range(max(2, points))]


def _curve(lines: Iterable[dict[str, Any]]) -> Curve:
    lines = list(lines)
    values = {_metric(name): [_number(line.get(name)) for line in lines] for name in _names(lines)}
    return Curve(
        {short: [float(line[key]) for line in lines] for key, short in POSITIONS.items()},
        {name: points for name, points in values.items() if any(point is not None for point in points)},
    )


def _number(value: Any) -> float | None:
    return float(value) if _is_number(value) else None
