"""Exponential moving average of the weights (Polyak and Juditsky 1992; in deep learning Tarvainen and Valpola 2017).

It is worth most where the learning rate stays high to the end (`schedule=constant`), and little where it falls to zero,
which averages as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmctl.average.base import Average


@dataclass(frozen=True)
class ExponentialAverage(Average):
    """An average over about the last 1 / (1 - decay) steps."""

    decay: float = 0.999

    def __post_init__(self) -> None:
        if not 0 < self.decay < 1:
            raise ValueError(f"decay must be above 0 and below 1, got {self.decay}")

    def newest(self, averaged: int) -> float:
        """1 - min(decay, (1 + t) / (10 + t)) after t steps: a young average soon forgets the weights it began with."""
        return 1 - min(self.decay, (1 + averaged) / (10 + averaged))
