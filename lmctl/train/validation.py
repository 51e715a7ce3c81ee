"""Validation: fixed rows with fixed masks, distributed over processes; metrics with confidence intervals and
baselines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from lmctl.core import progress
from lmctl.core.batch import Batch
from lmctl.core.counter_rng import CounterRng
from lmctl.core.token_store import TokenStore
from lmctl.mix.order import Drawn
from lmctl.mix.stream import batched
from lmctl.objective.base import LOSS, Examples, Metric, Objective
from lmctl.parallel.processes import Processes
from lmctl.train.confidence_intervals import about_mean, wilson
from lmctl.train.learner import Learner

VALID_SEED = 0
"""Validation masks do not depend on the run's seed, so that runs can be compared."""

FEWEST_GROUPS = 6
"""Minimum number of micro-batches for estimating a standard error."""


@dataclass(frozen=True)
class About:
    """Description of a validation metric."""

    term: str
    """The `<task>/<term>` whose targets it is averaged over."""
    higher_is_better: bool
    share: bool
    """Whether it is a proportion: every target counts 0 or 1."""


@dataclass(frozen=True)
class ValidationResult:
    """Result of a validation."""

    figures: dict[str, float]
    """Every loss and metric per target, as `<task>/<term>` and `<task>/<term>_<metric>`, and `loss`, the sum of the
    losses."""
    about: dict[str, About]
    """Description of each metric, `loss` included."""
    targets: dict[str, int]
    """Number of targets of each metric."""
    intervals: dict[str, tuple[float, float]]
    """95 % confidence interval of each metric that is a mean over rows, for sampling of such rows."""


@dataclass(frozen=True)
class Validation:
    """The validation rows of every task."""

    examples: Mapping[str, Examples]
    objectives: Mapping[str, Objective]
    rows: int | None
    micro: int
    processes: Processes
    turns: Callable[[int], int] = int
    """As `Strategy.turns`."""

    def _batches(self, task: str) -> Iterator[Batch]:
        examples, draws = self.examples[task], CounterRng(VALID_SEED, f"{task}/valid")
        for mine in self._rows(task):
            yield from batched(Drawn(examples, mine, np.zeros_like(mine)), self.micro, draws)

    def _rows(self, task: str) -> list[np.ndarray]:
        """The numbers of this process's rows, in parts of which each begins a batch."""
        examples, draws = self.examples[task], CounterRng(VALID_SEED, f"{task}/valid")
        rows = np.arange(len(examples))
        if self.rows is not None and self.rows < len(rows):
            some = np.sort(draws.permutation(0, len(rows))[: self.rows])
            rows = some if examples.tracks is None else rows[: self.rows]
        return self._mine(examples, rows)

    def _mine(self, examples: Examples, rows: np.ndarray) -> list[np.ndarray]:
        """This process's part of `rows` int64 [n], split where no batch may go on. Rows with carried state are
        distributed by whole tracks, as in training, and read segment by segment."""
        rank, world = self.processes.rank, self.processes.world
        tracks = examples.tracks
        if tracks is None:
            return [np.array_split(rows, world)[rank]]
        mine = rows[rows % tracks * world // tracks == rank]
        return np.split(mine, np.flatnonzero(np.diff(mine // tracks)) + 1)

    @property
    def counts(self) -> dict[str, int]:
        """Number of validation rows by task."""
        lengths = {task: len(some) for task, some in self.examples.items()}
        return {task: n if self.rows is None else min(n, self.rows) for task, n in lengths.items()}

    def measured(self, learner: Learner) -> ValidationResult:
        """All losses and metrics of the learner, with confidence intervals."""
        sums = {task: MetricSums() for task in self.examples}
        learner.eval()
        for task in self.examples:
            own = sum(-(-len(mine) // self.micro) for mine in self._rows(task))
            turns = self.turns(own)
            for batch in self._batches(task):
                sums[task].add(learner.metrics(batch.to(self.processes.device)))
                progress.beat()
            for _ in range(turns - own):  # others have more batches, and need this process
                learner.metrics(self._idle(task).to(self.processes.device))
        learner.train()
        return self._measured(sums)

    def _idle(self, task: str) -> Batch:
        """A row that is read once more, and does not count."""
        first, draws = np.zeros(1, np.int64), CounterRng(VALID_SEED, f"{task}/valid")
        (batch,) = batched(Drawn(self.examples[task], first, first), 1, draws)
        return batch.by_itself()

    def scores(self, learner: Learner) -> dict[str, float]:
        """The metrics of `measured` without intervals."""
        return self.measured(learner).figures

    def baseline(self, train: Mapping[str, TokenStore]) -> dict[str, float]:
        """The same metrics for a baseline that does not use the text: token frequencies of the training split, and for
        labels the frequencies in these very validation rows, the best that one constant answer can reach. A model has
        to beat it."""
        sums = {task: MetricSums() for task in self.examples}
        for task, objective in self.objectives.items():
            known = train[task] if objective.label_kind is None else self._labels(task, train[task])
            for batch in self._batches(task):
                targets = batch.targets.items()
                sums[task].add({term: objective.baseline(term, target.labels, known) for term, target in targets})
        return self._measured(sums).figures

    def _labels(self, task: str, train: TokenStore) -> TokenStore:
        """`train` with the labels of all validation rows, of all processes, in place of its own."""
        whole = replace(self, processes=OneProcess())  # type: ignore[arg-type]
        labels = [term.labels for batch in whole._batches(task) for term in batch.targets.values()]
        return replace(train, labels=torch.cat(labels).numpy())

    def _measured(self, sums: Mapping[str, MetricSums]) -> ValidationResult:
        figures: dict[str, float] = {}
        about: dict[str, About] = {}
        targets: dict[str, int] = {}
        intervals: dict[str, tuple[float, float]] = {}
        rows = self.counts
        for task in self.objectives:
            for name, one in sums[task].figures(self.processes).items():
                name = f"{task}/{name}"
                figures[name], targets[name] = one.value, int(one.count)
                about[name] = About(f"{task}/{one.kind.term}", one.kind.higher_is_better, one.kind.share)
                if (interval := one.interval(rows[task])) is not None:
                    intervals[name] = interval
        loss = sum(figures[name] for name, kind in about.items() if name == kind.term)
        return ValidationResult(
            {"loss": loss} | figures, {"loss": About("loss", False, False)} | about, targets, intervals
        )


class OneProcess:
    """Stands for a run of one process, which has all rows."""

    rank, world = 0, 1


class Kind(NamedTuple):
    """Description of a summed metric."""

    term: str
    higher_is_better: bool
    share: bool
    finish: Callable[[np.ndarray], float] | None
    shape: tuple[int, ...]


@dataclass(frozen=True)
class MetricEstimate:
    """A metric over all targets of its term, with its standard error."""

    kind: Kind
    value: float
    count: float
    error: float
    """Standard error of the mean under sampling of such rows, with groups (the micro-batches) taken as independent:
    that of a ratio of two sums (Cochran 1977, section 6.3)."""
    groups: int

    def interval(self, rows: int) -> tuple[float, float] | None:
        """Confidence interval: Wilson's if every row is one trial, else that of the mean; None if it is not a mean, or
        if there are too few groups."""
        if self.kind.finish is not None:
            return None
        if self.kind.share and self.count == rows:
            return wilson(self.value, self.count)
        if self.groups < FEWEST_GROUPS:
            return None
        low, high = about_mean(self.value, self.error, self.groups)
        return max(0.0, low), min(1.0, high) if self.kind.share else high


class MetricSums:
    """Sums and counts of the metrics of one task, by name; memory does not grow with the data."""

    def __init__(self) -> None:
        self.kinds: dict[str, Kind] = {}
        self.totals: dict[str, np.ndarray] = {}
        self.counts: dict[str, float] = {}
        self.squares: dict[str, np.ndarray] = {}
        """For scalars, float64 [4]: number of batches, and the sums over batches of total^2, total * count, count^2."""

    def add(self, metrics: Mapping[str, Mapping[str, Metric]]) -> None:
        """Add the metrics of one batch, by term and name."""
        for term, some in metrics.items():
            for name, metric in some.items():
                name = term if name == LOSS else f"{term}_{name}"
                total, count = _array(metric.sum), metric.count
                self.kinds[name] = Kind(term, metric.higher_is_better, metric.share, metric.finish, total.shape)
                self.totals[name] = self.totals.get(name, 0.0) + total
                self.counts[name] = self.counts.get(name, 0.0) + count
                if not total.shape and count:
                    squares = np.array([1.0, total * total, total * count, count * count])
                    self.squares[name] = self.squares.get(name, 0.0) + squares

    def figures(self, processes: Processes) -> dict[str, MetricEstimate]:
        """All metrics with targets, summed over all processes."""
        # A process may have no rows, so the names are those of rank 0.
        kinds: dict[str, Kind] = processes.broadcast(dict(sorted(self.kinds.items())))
        flat: list[float] = []
        for name, kind in kinds.items():
            flat += [self.counts.get(name, 0.0), *self.squares.get(name, np.zeros(4)).tolist()]
            flat += np.ravel(self.totals.get(name, np.zeros(kind.shape))).tolist()
        added, found = processes.sum(flat), {}
        for name, kind in kinds.items():
            size = 5 + int(np.prod(kind.shape))
            (count, groups, totals, products, counts), values = added[:5], added[5:size]
            added = added[size:]
            if not count:
                continue
            mean = np.array(values).reshape(kind.shape) / count
            value, error = float(mean) if kind.finish is None else kind.finish(mean), 0.0
            if groups > 1:
                spread = max(0.0, totals - 2 * value * products + value * value * counts)
                error = math.sqrt(groups / (groups - 1) * spread) / count
            found[name] = MetricEstimate(kind, value, count, error, int(groups))
        return found


def _array(value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().double().cpu().numpy()
    return np.asarray(value, dtype=np.float64)
