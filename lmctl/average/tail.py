"""Plain mean of the weights over the last part of the budget (Izmailov et al. 2018, "Averaging weights leads to wider
optima and better generalization", SWA; of language models Kaddour 2022, "Stop wasting my time!", LAWA)."""

from __future__ import annotations

from dataclasses import dataclass

from lmctl.average.base import Average


@dataclass(frozen=True)
class TailAverage(Average):
    """The mean over the steps of the last `share` of the budget; before that the newest weights."""

    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share is a part of the budget above 0, up to 1, got {self.share}")

    @property
    def begins(self) -> float:
        return 1 - self.share

    def newest(self, averaged: int) -> float:
        return 1 / (averaged + 1)
