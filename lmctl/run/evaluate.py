"""Validation: fixed rows, fixed masks, sums and counts only, shared out over the processes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from lmctl.core.batch import Batch
from lmctl.core.draws import Draws
from lmctl.core.errors import LmctlError
from lmctl.core.store import TokenStore
from lmctl.core.tasks import Examples, Objective
from lmctl.mix.order import Drawn
from lmctl.mix.stream import batched
from lmctl.run.learner import Learner
from lmctl.run.measures import about_mean, term_of, wilson
from lmctl.run.processes import Processes

VALID_SEED = 0
"""Validation masks do not depend on the run's seed, so that runs can be compared."""

FEWEST_GROUPS = 6
"""Micro-batches below which their spread says too little."""


@dataclass(frozen=True)
class Measured:
    """What a validation found."""

    figures: dict[str, float]
    """Every loss and score per target, as `<task>/<name>`, and `loss`, the sum of the losses."""
    losses: list[str]
    """Which of the figures are losses, `loss` aside."""
    targets: dict[str, int]
    """Of how many targets each figure is."""
    intervals: dict[str, tuple[float, float]]
    """The 95 % interval of each figure that is a mean over rows: how much it would differ on other rows like these."""


@dataclass(frozen=True)
class Validation:
    """The validation rows of every task."""

    examples: Mapping[str, Examples]
    objectives: Mapping[str, Objective]
    rows: int | None
    micro: int
    processes: Processes

    def _batches(self, task: str) -> Iterator[Batch]:
        examples = self.examples[task]
        rows = np.arange(len(examples))
        draws = Draws(VALID_SEED, f"{task}/valid")
        if self.rows is not None and self.rows < len(rows):
            ordered = getattr(examples, "ordered", False)
            rows = rows[: self.rows] if ordered else np.sort(draws.permutation(0, len(rows))[: self.rows])
        for mine in self._mine(examples, rows):
            yield from batched(Drawn(examples, mine, np.zeros_like(mine)), self.micro, draws)

    def _mine(self, examples: Examples, rows: np.ndarray) -> list[np.ndarray]:
        """This process's share of `rows` int64 [n], in pieces that never share a batch. Where rows go on
        from each other it is whole tracks, as in training, read segment by segment."""
        rank, world = self.processes.rank, self.processes.world
        if not getattr(examples, "ordered", False):
            return [np.array_split(rows, world)[rank]]
        tracks: int = examples.tracks  # type: ignore[attr-defined]
        mine = rows[rows % tracks * world // tracks == rank]
        return np.split(mine, np.flatnonzero(np.diff(mine // tracks)) + 1)

    @property
    def counts(self) -> dict[str, int]:
        """How many rows of each task are read."""
        lengths = {task: len(some) for task, some in self.examples.items()}
        return {task: n if self.rows is None else min(n, self.rows) for task, n in lengths.items()}

    def measured(self, learner: Learner) -> Measured:
        """Every loss and score of the learner's, with how sure it is."""
        sums = {task: Sums() for task in self.examples}
        learner.eval()
        with torch.no_grad():
            for task in self.examples:
                for batch in self._batches(task):
                    batch = batch.to(self.processes.device)
                    sums[task].add(batch, learner.scores(batch))
        learner.train()
        return self._measured(sums)

    def scores(self, learner: Learner) -> dict[str, float]:
        """Every loss and score per target, as `<task>/<name>`, and `loss`, the sum of the losses."""
        return self.measured(learner).figures

    def baseline(self, train: Mapping[str, TokenStore]) -> dict[str, float]:
        """The same figures for a guess that never looks at the text. Of pieces it knows how often they are in the
        training split; of labels, how often they are among these very rows: the best that one answer for all of them
        can reach, which is what a model has to beat on them."""
        sums = {task: Sums() for task in self.examples}
        for task, objective in self.objectives.items():
            known = train[task] if objective.label_kind is None else self._labels(task, train[task])
            for batch in self._batches(task):
                sums[task].add(batch, objective.baseline(batch, known))
        return self._measured(sums).figures

    def _labels(self, task: str, train: TokenStore) -> TokenStore:
        """`train` with the labels of the rows that are validated on, in all processes, in place of its own."""
        whole = replace(self, processes=Alone())  # type: ignore[arg-type]
        labels = [term.labels for batch in whole._batches(task) for term in batch.targets.values()]
        return replace(train, labels=torch.cat(labels).numpy())

    def _measured(self, sums: Mapping[str, Sums]) -> Measured:
        figures: dict[str, float] = {}
        losses: list[str] = []
        targets: dict[str, int] = {}
        intervals: dict[str, tuple[float, float]] = {}
        rows = self.counts
        for task, objective in self.objectives.items():
            means, terms = sums[task].means(self.processes)
            spreads = sums[task].spreads(self.processes, means)
            found = objective.figures(means)
            losses += [f"{task}/{name}" for name in terms if name in found]
            figures |= {f"{task}/{name}": value for name, value in found.items()}
            for name in found:
                targets[f"{task}/{name}"] = int(spreads[term_of(name, terms)].count)
                if (interval := _interval(name, spreads.get(name), rows[task])) is not None:
                    intervals[f"{task}/{name}"] = interval
        return Measured({"loss": sum(figures[name] for name in losses)} | figures, losses, targets, intervals)


class Alone:
    """A process that shares its rows with nobody."""

    rank, world = 0, 1


@dataclass(frozen=True)
class Spread:
    """How sure the mean of a score over its targets is."""

    mean: Any
    count: float
    error: float
    """Standard error of a mean over rows drawn like these, groups of which (the micro-batches) are taken to be
    independent: that of a ratio of two sums (Cochran 1977, section 6.3)."""
    groups: int


def _interval(name: str, seen: Spread | None, rows: int) -> tuple[float, float] | None:
    """Wilson's where every row is one trial; else the mean's own; None where there is no mean, or too few groups."""
    if seen is None or not isinstance(seen.mean, float):
        return None
    if name.endswith("_accuracy") and seen.count == rows:
        return wilson(seen.mean, seen.count)
    if seen.groups < FEWEST_GROUPS:
        return None
    low, high = about_mean(seen.mean, seen.error, seen.groups)
    return (max(0.0, low), min(1.0, high)) if name.endswith("_accuracy") else (max(0.0, low), high)


class Sums:
    """Sums and counts by name; memory does not grow with the data."""

    def __init__(self) -> None:
        self.totals: dict[str, np.ndarray] = {}
        self.counts: dict[str, float] = {}
        self.squares: dict[str, np.ndarray] = {}
        """Of scalars, float64 [4]: batches, and the sums over batches of total^2, total * count and count^2."""
        self.losses: set[str] = set()

    def add(self, batch: Batch, values: Mapping[str, Any]) -> None:
        """Add the sums of one batch. `nsp_accuracy` is counted over the targets of `nsp`. LmctlError for a name that
        begins with none of the batch's terms."""
        counts = batch.counts()
        self.losses |= counts.keys()
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                value = value.detach().double().cpu().numpy()
            total, count = np.asarray(value, dtype=np.float64), counts[_term_of(name, counts, batch.task)]
            self.totals[name] = self.totals.get(name, 0.0) + total
            self.counts[name] = self.counts.get(name, 0.0) + count
            if not total.shape and count:
                squares = np.array([1.0, total * total, total * count, count * count])
                self.squares[name] = self.squares.get(name, 0.0) + squares

    def means(self, processes: Processes) -> tuple[dict[str, Any], list[str]]:
        """Sum over count of every name that has any, over all processes; and which of them are losses."""
        # A process may have had no rows, so the names are those of the first one.
        shapes = {name: total.shape for name, total in sorted(self.totals.items())}
        shapes, losses = processes.agree((shapes, sorted(self.losses)))
        flat: list[float] = []
        for name, shape in shapes.items():
            flat += [self.counts.get(name, 0.0), *np.ravel(self.totals.get(name, np.zeros(shape))).tolist()]
        added = processes.sum(flat)
        means: dict[str, Any] = {}
        for name, shape in shapes.items():
            size = int(np.prod(shape))
            count, values, added = added[0], added[1 : 1 + size], added[1 + size :]
            if count:
                mean = np.array(values).reshape(shape) / count
                means[name] = float(mean) if not shape else mean
        return means, losses

    def spreads(self, processes: Processes, means: Mapping[str, Any]) -> dict[str, Spread]:
        """How sure each of `means` is, over all processes."""
        nothing = np.zeros(4)
        flat = [v for n in means for v in (self.counts.get(n, 0.0), *self.squares.get(n, nothing).tolist())]
        added = processes.sum(flat)
        found = {}
        for place, (name, mean) in enumerate(means.items()):
            count, groups, totals, products, counts = added[5 * place : 5 * place + 5]
            error = 0.0
            if groups > 1:
                spread = max(0.0, totals - 2 * mean * products + mean * mean * counts)
                error = math.sqrt(groups / (groups - 1) * spread) / count
            found[name] = Spread(mean, count, error, int(groups))
        return found


def _term_of(name: str, terms: Mapping[str, Any], task: str) -> str:
    """The term over whose targets the score `name` is counted: "label_macro_f1" belongs to "label"."""
    try:
        return term_of(name, terms)
    except ValueError:
        raise LmctlError(
            f"mix.tasks.{task}: the objective gives a score {name!r}, and its terms are {', '.join(terms)}",
            "the name of a score begins with the term whose targets it is counted over, as nsp_accuracy does",
        ) from None
