"""Weight of a distillation loss, constant or a curriculum over the budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lmctl.core.piecewise import check_curve, curve_at, points_of


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """Base of distillation losses: the weight and its curriculum."""

    weight: Any = 1.0
    """A number, or points `[[progress, weight], ...]` over the budget, progress going from 0 to 1."""
    between: str = "linear"
    """Interpolation of the weight between the points: "linear", or constant until the next one."""

    def __post_init__(self) -> None:
        check_curve("weight", self.weight, self.between)
        if any(weight < 0 for _, weight in points_of("weight", self.weight)):
            raise ValueError(f"weight must not be negative, got {self.weight}")

    def weight_at(self, progress: float) -> float:
        return curve_at(points_of("weight", self.weight), progress, self.between)
