"""Validation: fixed rows, fixed masks, sums and counts only, shared out over the processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from lmctl.core.draws import Draws
from lmctl.core.types import Batch, Examples, Objective
from lmctl.mix.stream import batches
from lmctl.run.learner import Learner
from lmctl.run.processes import Processes

VALID_SEED = 0
"""Validation masks do not depend on the run's seed, so that runs can be compared."""


@dataclass(frozen=True)
class Validation:
    """The validation rows of a task."""

    task: str
    examples: Examples
    rows: int | None
    micro: int
    processes: Processes

    def _batches(self) -> Iterator[Batch]:
        rows = np.arange(len(self.examples))
        draws = Draws(VALID_SEED, f"{self.task}/valid")
        if self.rows is not None and self.rows < len(rows):
            rows = np.sort(draws.permutation(0, len(rows))[: self.rows])
        mine = np.array_split(rows, self.processes.world)[self.processes.rank]
        yield from batches(self.examples, mine, np.zeros_like(mine), self.micro, draws)

    def scores(self, learner: Learner) -> dict[str, float]:
        """Mean of every loss and score per target, as `<task>/<name>`, and `loss`, the sum of the losses."""
        sums = Sums()
        learner.eval()
        with torch.no_grad():
            for batch in self._batches():
                batch = batch.to(self.processes.device)
                sums.add(batch, {name: value.item() for name, value in learner.scores(batch).items()})
        learner.train()
        return self._means(sums)

    def baseline(self, objective: Objective, histogram: np.ndarray) -> dict[str, float]:
        """The same figures for a guess that never looks at the text."""
        pieces = torch.from_numpy(np.array(histogram))
        sums = Sums()
        for batch in self._batches():
            sums.add(batch, objective.baseline(batch, pieces))
        return self._means(sums)

    def _means(self, sums: Sums) -> dict[str, float]:
        # A process may have had no rows, so the names are the first one's.
        names, losses = self.processes.agree((sorted(sums.totals), sorted(sums.losses)))
        flat = self.processes.sum([part for name in names for part in sums.totals.get(name, [0.0, 0.0])])
        means = {name: flat[2 * i] / flat[2 * i + 1] for i, name in enumerate(names) if flat[2 * i + 1]}
        loss = sum(means[name] for name in losses if name in means)
        return {"loss": loss} | {f"{self.task}/{name}": value for name, value in means.items()}


class Sums:
    """Sums and counts by name; memory does not grow with the data."""

    def __init__(self) -> None:
        self.totals: dict[str, list[float]] = {}
        self.losses: set[str] = set()

    def add(self, batch: Batch, values: dict[str, float]) -> None:
        """Add the sums of one batch. `nsp_accuracy` is counted over the targets of `nsp`."""
        counts = batch.counts()
        self.losses |= counts.keys()
        for name, value in values.items():
            total = self.totals.setdefault(name, [0.0, 0.0])
            total[0] += value
            total[1] += counts[name if name in counts else name.rsplit("_", 1)[0]]
