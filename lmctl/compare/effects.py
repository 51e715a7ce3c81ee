"""Main effects: what changing one setting does to a metric, all others and the seed being equal.

Two runs are a pair if they differ in this setting only. Differences are averaged over the settings of the others, for
each seed, and a seed is one independent observation: the interval is Student's, over seeds (Student 1908). With a
single seed there is a difference and no interval.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmctl.compare.axes import Axis
from lmctl.compare.run import Run
from lmctl.train.confidence_intervals import about_mean


@dataclass(frozen=True)
class Effect:
    """The difference of a metric between one value of a setting and its reference value."""

    axis: str
    value: str
    reference: str
    difference: float
    interval: tuple[float, float] | None
    """95 %, over seeds; None with one seed."""
    seeds: int
    pairs: int


def main_effects(runs: Sequence[Run], axes: Sequence[Axis], metric: str) -> list[Effect]:
    """The effect of every value of every axis on a metric, against the value that most runs have, the first of equals.
    Runs that are not completed, or lack the metric, take no part."""
    return [effect for place in range(len(axes)) for effect in _of_axis(runs, axes, place, metric)]


def _of_axis(runs: Sequence[Run], axes: Sequence[Axis], place: int, metric: str) -> list[Effect]:
    own, others = axes[place], [axis for number, axis in enumerate(axes) if number != place]
    by_value: dict[str, dict[tuple[str, tuple[str | None, ...]], float]] = {}
    for number, run in enumerate(runs):
        value, seed = own.values[number], run.seed
        if run.is_complete and metric in run.metrics and value is not None and seed is not None:
            where = (seed, tuple(axis.values[number] for axis in others))
            by_value.setdefault(value, {})[where] = run.metrics[metric]
    reference = max(by_value, key=lambda value: len(by_value[value]), default="")
    values = [value for value in by_value if value != reference]
    found = (_effect(own.name, value, reference, by_value[value], by_value[reference]) for value in values)
    return [effect for effect in found if effect is not None]


def _effect(
    axis: str,
    value: str,
    reference: str,
    here: Mapping[tuple[str, tuple[str | None, ...]], float],
    there: Mapping[tuple[str, tuple[str | None, ...]], float],
) -> Effect | None:
    """None if no two runs are a pair."""
    pairs = {where: here[where] - there[where] for where in here if where in there}
    by_seed: dict[str, dict[tuple[str | None, ...], float]] = defaultdict(dict)
    for (seed, context), difference in pairs.items():
        by_seed[seed][context] = difference
    if not pairs:
        return None
    common = set.intersection(*map(set, by_seed.values()))  # the same settings for each seed, or seeds are not alike
    if len(by_seed) < 2 or not common:
        mean = statistics.mean(pairs.values())
        return Effect(axis, value, reference, mean, None, len(by_seed), len(pairs))
    means = [statistics.mean(found[context] for context in common) for found in by_seed.values()]
    mean, error = statistics.mean(means), statistics.stdev(means) / len(means) ** 0.5
    return Effect(
        axis, value, reference, mean, about_mean(mean, error, len(means)), len(means), len(means) * len(common)
    )
