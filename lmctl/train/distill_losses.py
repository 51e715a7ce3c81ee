"""Distillation losses as the learner asks for them, and the default without a teacher: there are none.

With a teacher they are those of `lmctl.distill.distillation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor, nn

from lmctl.core.batch import Batch
from lmctl.distill.base import States
from lmctl.objective.base import Prediction

TargetLoss: TypeAlias = Callable[[Tensor, slice], Tensor]
"""(student's logits [n, C] at the targets `rows`, the slice `rows`) -> a loss, summed over these targets."""


@dataclass(frozen=True)
class DistillLosses:
    """Distillation losses of one micro-batch, with their weights."""

    task_weight: float = 1.0
    """Weight of the objective's own (hard-label) losses."""
    logits: Mapping[str, Mapping[str, tuple[float, TargetLoss]]] = field(default_factory=dict)
    """By term of the objective, then by name: weight and function of a loss on logits."""
    states: Mapping[str, tuple[float, Tensor]] = field(default_factory=dict)
    """By name: weight and value of a feature loss, summed over real positions."""


class NoDistillation(nn.Module):
    """Default without a teacher: the objective's own losses only."""

    shown: Sequence[str] = ()
    """Layer pairs that are compared, as lines for people."""
    chunk_bytes: int | None = None

    def counts(self, batch: Batch) -> dict[str, int]:
        """Number of targets or positions that each distillation loss is summed over."""
        return {}

    def recording(self) -> AbstractContextManager[Any]:
        """Context in which the student's forward pass is recorded, if a feature loss needs it."""
        return nullcontext()

    def recorded(self, batch: Batch) -> States | None:
        """The states of the last recording."""
        return None

    def losses(
        self, batch: Batch, predictions: Mapping[str, Prediction], states: States | None, progress: float
    ) -> DistillLosses:
        """The distillation losses of `batch`, when `progress` of the budget is spent."""
        return DistillLosses()
