"""Several runs side by side: what differs, which of them can be compared, fronts and effects."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lmctl.compare.axes import Axis, axes_of, cells_of
from lmctl.compare.comparable import differences
from lmctl.compare.effects import Effect, main_effects
from lmctl.compare.find import Found, find, names_of
from lmctl.compare.importance import Importance, importance_in
from lmctl.compare.pareto import front
from lmctl.compare.run import COSTS, Metric, Run, read_run
from lmctl.core.files import path_of
from lmctl.core.paths import Paths

POINTS, LEAST_POINTS, ALL_POINTS = 400, 40, 40_000
"""Points of a curve: at most, at least, and of all curves together."""
LOSS = "loss"
ENDED = ("completed", "failed", "refused", "stopped")


@dataclass(frozen=True)
class Comparison:
    """Runs, and what is said of all of them together."""

    runs: tuple[Run, ...]
    importance: Importance | None = None
    """Of the settings, where the runs are those of one search."""

    @cached_property
    def axes(self) -> list[Axis]:
        return axes_of(self.runs)

    @cached_property
    def cells(self) -> list[int]:
        """The cell of each run; runs of one cell differ in their seed only."""
        return cells_of(self.runs, self.axes)

    @cached_property
    def apart(self) -> dict[int, str]:
        """Runs whose metrics cannot be compared with the others', with the reason."""
        return differences(self.runs)

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """All metrics, the loss first; of runs with a single task, without its term, which is the loss once more."""
        found = {name: about for run in self.runs for name, about in run.about.items()}
        named = {name: about for name, about in found.items() if name == LOSS or not self._is_the_loss(name)}
        return dict(sorted(named.items(), key=lambda one: one[0] != LOSS))

    def _is_the_loss(self, name: str) -> bool:
        return all(run.metrics.get(name) == run.metrics.get(LOSS) for run in self.runs)

    @property
    def is_running(self) -> bool:
        """Whether a run of these has not ended."""
        return any(run.status not in ENDED for run in self.runs)

    @property
    def counts(self) -> str:
        """How many runs there are, by status: `12 runs: 10 completed, 2 failed`."""
        statuses = [run.status for run in self.runs]
        parts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
        return f"{len(statuses)} run{'s' if len(statuses) != 1 else ''}: {parts}"

    def label(self, cell: int) -> str:
        """The settings of a cell; the name of its first run where none differs."""
        first = self.cells.index(cell)
        known = [f"{axis.name}={axis.values[first]}" for axis in self.axes if axis.values[first] is not None]
        return ", ".join(known) if known and len(known) <= 6 else self.runs[first].name

    def effects(self, metric: str) -> list[Effect]:
        """Main effects on a metric, of the runs that can be compared."""
        kept = [place for place in range(len(self.runs)) if place not in self.apart]
        axes = [Axis(axis.name, tuple(axis.values[place] for place in kept)) for axis in self.axes]
        return main_effects([self.runs[place] for place in kept], axes, metric)

    def front(self, metric: str, cost: str) -> list[int]:
        """Indices of the completed, comparable runs on the Pareto front, from the cheapest to the best."""
        about = self.metrics[metric]
        able = [
            place
            for place, run in enumerate(self.runs)
            if run.is_complete and place not in self.apart and metric in run.metrics and cost in run.costs
        ]
        runs = [self.runs[place] for place in able]
        found = front([run.costs[cost] for run in runs], [run.metrics[metric] for run in runs], about.higher_is_better)
        return [able[place] for place in found]

    @property
    def costs(self) -> list[str]:
        """The keys of the costs that some run has."""
        return [cost for cost in COSTS if any(cost in run.costs for run in self.runs)]

    def over_seeds(self, metric: str) -> Iterator[tuple[str, list[float]]]:
        """Of every cell with several completed runs, its settings and a metric of each of them."""
        for cell in dict.fromkeys(self.cells):
            runs = [run for run, its in zip(self.runs, self.cells, strict=True) if its == cell and run.is_complete]
            values = [run.metrics[metric] for run in runs if metric in run.metrics]
            if len(values) > 1 and len({run.seed for run in runs}) == len(runs):
                yield self.label(cell), values


class Reader:
    """Reads the runs in some places, and again; what has not changed since is not read twice."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self._kept: dict[Path, tuple[object, Run]] = {}

    def read(self) -> Comparison:
        """The comparison as it stands. ConfigError for a place without a run."""
        found = find(self.words)
        points = max(LEAST_POINTS, min(POINTS, ALL_POINTS // len(found)))
        names = names_of([one.place for one in found])
        runs = tuple(self._run(name, one, points) for name, one in zip(names, found, strict=True))
        return Comparison(runs, self._importance())

    def _importance(self) -> Importance | None:
        if len(self.words) != 1:
            return None
        with suppress(ValueError):  # `lmctl compare` says it
            return importance_in(path_of(self.words[0]))
        return None

    def _run(self, name: str, found: Found, points: int) -> Run:
        state = (name, points, found.row, *map(_state, _files(Paths(found.place))))
        kept = self._kept.get(found.place)
        if kept is None or kept[0] != state:
            kept = self._kept[found.place] = (state, read_run(name, found.place, points, found.row))
        return kept[1]


def _files(run: Paths) -> tuple[Path, ...]:
    return run.config, run.environment, run.metrics, run.summary, run.results


def _state(file: Path) -> tuple[int, int, int] | None:
    """What changes when a file does; None if there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
