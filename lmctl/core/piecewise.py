"""Piecewise curves: a setting that is a constant, or a function of training progress given by points."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

BETWEEN = ("linear", "step")
"""Interpolation between two points: linear, or constant until the next point."""


def check_curve(name: str, value: Any, between: str) -> None:
    """ValueError unless `value` is a number or ascending points `[[progress, value], ...]`, and `between` is in
    BETWEEN."""
    if between not in BETWEEN:
        raise ValueError(f"between must be one of {', '.join(BETWEEN)}, got {between!r}")
    places = [progress for progress, _ in points_of(name, value)]
    if places != sorted(set(places)) or not all(0 <= place <= 1 for place in places):
        raise ValueError(f"{name}'s points go from progress 0 to 1, each further than the one before: {value}")


def points_of(name: str, value: Any) -> list[tuple[float, float]]:
    """The curve as (progress, value); one point if it is constant."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return [(0.0, float(value))]
    try:
        points = [(float(progress), float(height)) for progress, height in value]
    except (TypeError, ValueError):
        points = []
    if not points:
        raise ValueError(f"{name} must be a number or points [[progress, {name}], ...], got {value}")
    return points


def curve_at(points: list[tuple[float, float]], progress: float, between: str) -> float:
    """The value at `progress` (0 to 1) of the budget."""
    after = bisect_right([place for place, _ in points], progress)
    if after == 0:
        return points[0][1]
    if after == len(points) or between == "step":
        return points[after - 1][1]
    (start, low), (end, high) = points[after - 1], points[after]
    return low + (high - low) * (progress - start) / (end - start)
