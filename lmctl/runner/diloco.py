"""Rare synchronisation: workers that exchange how far they have come every so many steps (`lmctl.parallel.diloco`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Optional

from lmctl.core.component import DECIDES
from lmctl.core.errors import ConfigError
from lmctl.runner.places import Ddp

if TYPE_CHECKING:
    from lmctl.compression.base import GradCompressor
    from lmctl.parallel.processes import Processes
    from lmctl.parallel.strategy import Strategy
    from lmctl.plan import Plan

NEAREST = "nearest: runner.processes=2, or runner.workers=2 (simulated in one process)"


@dataclass(frozen=True)
class DiLoCo(Ddp):
    """Workers train apart for `every` steps, then take an outer step together with the mean of how far each has come
    (DiLoCo: Douillard et al. 2023). They are processes, or simulated ones."""

    every: int = field(default=50, metadata=DECIDES)
    """Inner steps between two outer steps (H in the paper)."""
    outer_lr: float = field(default=0.7, metadata=DECIDES)
    """Learning rate of the outer steps; `optim.lr` and the schedule are those of the inner ones."""
    outer_momentum: float = field(default=0.9, metadata=DECIDES)
    """Nesterov momentum of the outer steps."""
    workers: Optional[int] = None
    """Number of simulated workers, as in `runner=simulated`; null: each process is one worker."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, count in (("every", self.every), ("workers", self.workers)):
            if count is not None and count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        if self.outer_lr <= 0:
            raise ValueError(f"outer_lr must be above 0, got {self.outer_lr}")
        if not 0 <= self.outer_momentum < 1:
            raise ValueError(f"outer_momentum must be from 0 to below 1, got {self.outer_momentum}")
        if self.workers is not None and self.processes is not None:
            raise ValueError("workers are simulated in one process: give either workers or processes")

    def world(self) -> int:
        return 1 if self.workers is not None else super().world()

    @property
    def simulated(self) -> int | None:
        return self.workers

    def check_world(self, world: int) -> None:
        if world == 1 and self.workers is None:
            raise ConfigError("runner=diloco: a single worker has no others to synchronise with", NEAREST)

    def strategy(self, processes: Processes, compression: GradCompressor, clip_norm: float | None) -> Strategy:
        from lmctl.parallel.diloco import DiLoCo as Apart

        return Apart(processes, compression, self.every, self.outer_lr, self.outer_momentum)

    def remarks(self, plan: Plan) -> list[str]:
        return []  # what is sent reaches the outer optimiser, which is SGD

    def check(self, plan: Plan) -> Iterator[ConfigError]:
        played, stored = plan.compression.simulate_workers, plan.precision.storage
        if played not in (None, self.workers):
            yield ConfigError(
                f"compression.simulate_workers={played} and runner=diloco both say how many workers there are",
                f"nearest: compression.simulate_workers=null runner.workers={played}",
            )
        if stored == "bf16" or (stored is not None and not plan.model.lora_rank):
            yield ConfigError(
                f"runner=diloco averages small differences of weights, and weights stored in {stored} have none",
                "nearest: precision=bf16 (products in bf16, weights in float32), or runner=ddp",
            )
        if plan.average.newest(1) < 1:
            yield ConfigError(
                "runner=diloco: between two outer steps the workers have no weights in common to average",
                "nearest: average=none (an outer step averages as well), or runner=ddp",
            )
        if plan.mix.conflict_every is not None:
            yield ConfigError(
                "mix.conflict_every compares gradients at the same weights, and workers of runner=diloco differ",
                "nearest: mix.conflict_every=null, or runner=ddp",
            )
        yield from plan.compression.check_differences()
