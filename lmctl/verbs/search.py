"""`lmctl search`: search settings with Optuna: every trial is a run, bad ones are stopped early."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from lmctl.config.search_schema import SearchConfig
from lmctl.config.verb import OWN_TEXT, SearchVerb

if TYPE_CHECKING:
    from omegaconf import DictConfig


class Search(SearchVerb):
    purpose = "Search settings: Optuna proposes values, every trial is a run of train, bad ones are stopped early."
    examples = (
        "lmctl search 'optim.lr=tag(log,interval(1e-4,1e-2))' model.layers=2,4 trials=30",
        "lmctl search 'schedule.warmup=interval(0,0.2)' precision=fp32,bf16 pruner=none",
        "lmctl search 'model.hidden=range(64,257,64)' budget.minutes=2 at_once=2 name=widths",
    )
    often = (
        "trials", "metric", "maximize", "pruner", "sampler", "at_once", "name", "budget.minutes", "eval.every",
    )  # fmt: skip
    schema = SearchConfig
    prints = False
    alone: ClassVar[str | None] = OWN_TEXT

    def refuse(self, cfg: DictConfig) -> None:
        """ConfigError if a trial is illegal whatever its data."""
        from lmctl.jobs.training import check_legal

        check_legal(cfg, self.schema)
