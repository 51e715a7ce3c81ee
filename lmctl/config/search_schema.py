"""The table of `lmctl search`: all of `train`'s keys, any of them with values to search in, and how to search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from lmctl.config.groups import TrainConfig
from lmctl.config.schema import one_of, positive
from lmctl.config.table import key

SAMPLERS = ("tpe", "random")
PRUNERS = ("median", "hyperband", "none")


@dataclass(frozen=True)
class SearchConfig(TrainConfig):
    """Root config of `lmctl search`."""

    trials: int = key(20, "how many runs there are in all, pruned and failed ones included")
    at_once: int = key(1, "trials at the same time")
    gpus_per_trial: int = key(0, "GPUs dealt out to each trial; 0: every trial sees all of them")
    metric: str = key("loss", "validation metric to make smaller: loss, or TASK/TERM")
    maximize: bool = key(False, "make the metric larger, as of an accuracy")
    sampler: str = key("tpe", "how values are proposed: tpe (from the trials so far, after 10 by chance) or random")
    pruner: str = key(
        "median",
        "which trials are stopped early: median (worse than half of the others at the same step), hyperband or none",
    )
    prune_after: int = key(5, "finished trials before any is stopped early by median")
    limit_minutes: Optional[float] = key(None, "no trial starts after this time; null: no limit")

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(SAMPLERS, sampler=self.sampler)
        one_of(PRUNERS, pruner=self.pruner)
        positive(trials=self.trials, at_once=self.at_once, limit_minutes=self.limit_minutes)
        if self.gpus_per_trial < 0 or self.prune_after < 0:
            raise ValueError("gpus_per_trial and prune_after must not be negative")
