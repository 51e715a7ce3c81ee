"""The Pareto front: the runs that no other run beats in quality at the same cost or less."""

from __future__ import annotations

from collections.abc import Sequence


def front(costs: Sequence[float], quality: Sequence[float], higher_is_better: bool) -> list[int]:
    """Indices of the points on the front, from the cheapest to the best. Of equal points the first one counts."""
    sign = -1 if higher_is_better else 1
    order = sorted(range(len(costs)), key=lambda place: (costs[place], sign * quality[place], place))
    found: list[int] = []
    for place in order:
        if not found or sign * quality[place] < sign * quality[found[-1]]:
            found.append(place)
    return found
