"""Simulated data parallelism: workers are threads of one process that take turns (`lmctl.parallel.simulate`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmctl.core.errors import ConfigError
from lmctl.runner.places import Either

if TYPE_CHECKING:
    from lmctl.plan import Plan


@dataclass(frozen=True)
class Simulated(Either):
    """Simulated workers on one device, each with its rows, weights, optimiser and dropout, as a process of
    `runner=ddp`."""

    workers: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")

    def world(self) -> int:
        return 1

    @property
    def simulated(self) -> int:
        return self.workers

    def check(self, plan: Plan) -> Iterator[ConfigError]:
        other = plan.compression.simulate_workers
        if other not in (None, self.workers):
            yield ConfigError(
                f"runner.workers={self.workers} and compression.simulate_workers={other} both say how many workers "
                "are simulated",
                "nearest: compression.simulate_workers=null",
            )
