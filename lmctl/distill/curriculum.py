"""Total loss of a student: weighted sum of hard-label loss and distillation losses, with curricula for the weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from lmctl.core.component import MAY_CHANGE
from lmctl.core.piecewise import check_curve, curve_at, points_of
from lmctl.distill.base import Distiller, DistillTerm
from lmctl.precision.base import Precision


@dataclass(frozen=True)
class Curriculum(Distiller):
    """loss = hard * (the objective's own) + sum over terms of weight * (distillation loss)."""

    terms: dict[str, DistillTerm]
    teacher_precision: Optional[Precision] = None
    """None: float32."""
    hard: Any = 1.0
    """Weight of the hard-label losses: a number, or points `[[progress, hard], ...]` over the budget."""
    between: str = "linear"
    """Interpolation of `hard` between its points: "linear", or constant until the next one."""
    control: bool = field(default=True, metadata=MAY_CHANGE)
    chunk_mb: float = field(default=16.0, metadata=MAY_CHANGE)

    def __post_init__(self) -> None:
        check_curve("hard", self.hard, self.between)
        if not self.terms:
            raise ValueError("terms must name at least one term (distill=none: no teacher)")
        if self.chunk_mb <= 0:
            raise ValueError(f"chunk_mb must be above 0, got {self.chunk_mb}")
        if any(hard < 0 for _, hard in points_of("hard", self.hard)):
            raise ValueError(f"hard must not be negative, got {self.hard}")

    @property
    def chunk_bytes(self) -> int:
        return int(self.chunk_mb * 2**20)

    def task_weight_at(self, progress: float) -> float:
        return curve_at(points_of("hard", self.hard), progress, self.between)
