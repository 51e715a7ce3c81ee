"""Static masking: `maskings=N` versions of each row, one per epoch, used cyclically.

By default a row differs in every epoch: other masks, other cuts, another neighbour. With a few repeated versions (as in
BERT's own preprocessing; Liu et al. 2019, section 4.1, "static masking") teacher logits can be cached.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from lmctl.core.batch import Batch
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import ConfigError
from lmctl.distill.teacher import needs_teacher
from lmctl.objective.base import Examples, Material
from lmctl.plan import Plan


@dataclass(frozen=True)
class Repeating(Examples):
    """Examples whose epoch e is epoch e mod `versions`."""

    examples: Examples
    versions: int

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def material(self) -> Material:  # type: ignore[override]
        return self.examples.material

    @property
    def lengths(self) -> np.ndarray | None:
        return self.examples.lengths

    @property
    def tracks(self) -> int | None:
        return self.examples.tracks

    @property
    def tokens_per_row(self) -> float:
        return self.examples.tokens_per_row

    def at(self, progress: float) -> Repeating:
        return replace(self, examples=self.examples.at(progress))

    def collate(self, rows: np.ndarray, epochs: np.ndarray, draws: CounterRng) -> Batch:
        return self.examples.collate(rows, epochs % self.versions, draws)


def repeating(examples: Mapping[str, Examples], versions: int | None) -> dict[str, Examples]:
    """Every task's rows in `versions` versions; None: a new version in every epoch."""
    if versions is None:
        return dict(examples)
    return {task: Repeating(some, versions) for task, some in examples.items()}


def versions_of(plan: Plan, examples: Mapping[str, Examples]) -> int | None:
    """Number of versions of each row, or None if rows do not repeat: `maskings`; else, if teacher logits are cached,
    the number of epochs in the budget. ConfigError if it cannot be determined."""
    if plan.maskings is not None or not needs_teacher(plan) or plan.teacher_cache == "off":
        return plan.maskings
    budget, epochs = plan.budget, []
    if budget.epochs is not None:
        epochs.append(budget.epochs)
    if budget.most_steps is not None and len(examples) == 1:
        epochs.append(budget.most_steps * plan.batch.rows / len(next(iter(examples.values()))))
    if not epochs:
        raise ConfigError(
            f"teacher_cache={plan.teacher_cache}: nobody knows how often each row will be seen, so how many answers to "
            "keep",
            "maskings=N (versions of each row, which then repeat), or budget.epochs",
        )
    return max(1, math.ceil(min(epochs)))
