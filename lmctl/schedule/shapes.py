"""Learning rate schedules as functions of progress, so that each works with any budget (steps, tokens, minutes).

All warm up linearly from 0 over the first `warmup` of the budget (Goyal et al. 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lmctl.schedule.base import Schedule


@dataclass(frozen=True)
class Constant(Schedule):
    """Linear warm-up, then constant."""

    warmup: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of the budget from 0 to below 1, got {self.warmup}")

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return progress / self.warmup
        return self.after(min(1.0, (progress - self.warmup) / (1 - self.warmup)))

    def after(self, spent: float) -> float:
        """The multiplier after warm-up, when `spent` (0 to 1) of the rest of the budget is gone."""
        return 1.0


@dataclass(frozen=True)
class Linear(Constant):
    """Linear warm-up, then linear decay (BERT's schedule)."""

    floor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor is a share of the peak from 0 to 1, got {self.floor}")

    def after(self, spent: float) -> float:
        return self.floor + (1 - self.floor) * (1 - spent)


@dataclass(frozen=True)
class Cosine(Linear):
    """Linear warm-up, then cosine decay over half a period (Loshchilov and Hutter 2017)."""

    def after(self, spent: float) -> float:
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * spent)) / 2


@dataclass(frozen=True)
class WarmupStableDecay(Linear):
    """Linear warm-up, constant, then linear decay over the last `decay` of the budget (Hu et al. 2024, MiniCPM)."""

    decay: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.decay <= 1 - self.warmup:
            raise ValueError(f"decay is a share of the budget above 0 that warmup leaves free, got {self.decay}")

    def after(self, spent: float) -> float:
        decay = self.decay / (1 - self.warmup)
        return 1.0 if spent < 1 - decay else self.floor + (1 - self.floor) * (1 - spent) / decay
