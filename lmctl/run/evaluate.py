"""Validation: fixed rows, fixed masks, sums and counts only, shared out over the processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
from lmctl.run.processes import Processes

VALID_SEED = 0
"""Validation masks do not depend on the run's seed, so that runs can be compared."""


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

    def scores(self, learner: Learner) -> dict[str, float]:
        """Every loss and score per target, as `<task>/<name>`, and `loss`, the sum of the losses."""
        sums = {task: Sums() for task in self.examples}
        learner.eval()
        with torch.no_grad():
            for task in self.examples:
                for batch in self._batches(task):
                    batch = batch.to(self.processes.device)
                    sums[task].add(batch, learner.scores(batch))
        learner.train()
        return self._figures(sums)

    def baseline(self, train: Mapping[str, TokenStore]) -> dict[str, float]:
        """The same figures for a guess that never looks at the text, made from the training splits."""
        sums = {task: Sums() for task in self.examples}
        for task, objective in self.objectives.items():
            for batch in self._batches(task):
                sums[task].add(batch, objective.baseline(batch, train[task]))
        return self._figures(sums)

    def _figures(self, sums: Mapping[str, Sums]) -> dict[str, float]:
        figures: dict[str, float] = {}
        loss = 0.0
        for task, objective in self.objectives.items():
            means, losses = sums[task].means(self.processes)
            found = objective.figures(means)
            loss += sum(found[name] for name in losses if name in found)
            figures |= {f"{task}/{name}": value for name, value in found.items()}
        return {"loss": loss} | figures


class Sums:
    """Sums and counts by name; memory does not grow with the data."""

    def __init__(self) -> None:
        self.totals: dict[str, np.ndarray] = {}
        self.counts: dict[str, float] = {}
        self.losses: set[str] = set()

    def add(self, batch: Batch, values: Mapping[str, Any]) -> None:
        """Add the sums of one batch. `nsp_accuracy` is counted over the targets of `nsp`. LmctlError for a name that
        begins with none of the batch's terms."""
        counts = batch.counts()
        self.losses |= counts.keys()
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                value = value.detach().double().cpu().numpy()
            self.totals[name] = self.totals.get(name, 0.0) + np.asarray(value, dtype=np.float64)
            self.counts[name] = self.counts.get(name, 0.0) + counts[_term_of(name, counts, batch.task)]

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


def _term_of(name: str, terms: Mapping[str, Any], task: str) -> str:
    """The term over whose targets the score `name` is counted: "label_macro_f1" belongs to "label"."""
    words = name.split("_")
    for end in range(len(words), 0, -1):
        if (term := "_".join(words[:end])) in terms:
            return term
    raise LmctlError(
        f"mix.tasks.{task}: the objective gives a score {name!r}, and its terms are {', '.join(terms)}",
        "the name of a score begins with the term whose targets it is counted over, as nsp_accuracy does",
    )
