"""`lmctl train`: pre-train or fine-tune a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from lmctl.config.groups import TrainConfig
from lmctl.config.verb import OWN_TEXT, Verb

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lmctl.jobs.training import Training


class Train(Verb["Training"]):
    purpose = "Pre-train or fine-tune a model. Ctrl-C saves and stops; resume=auto goes on."
    examples = (
        "lmctl train budget.minutes=2",
        "lmctl train data=text data.path=corpus/ model=bert_mini precision=bf16 name=mine",
        "lmctl train -m precision=fp32,bf16 seed=1,2,3",
    )
    often = (
        "data.path", "model", "mix", "precision", "budget.minutes", "batch.size", "batch.seq_len", "optim.lr",
        "name", "init_from",
    )  # fmt: skip
    schema = TrainConfig
    prints = False
    alone: ClassVar[str | None] = OWN_TEXT

    def read(self, cfg: DictConfig) -> Training:
        """The run, with all components built and all their combinations checked."""
        from lmctl.jobs.training import Training

        return Training.from_config(cfg, self.schema)

    def refuse(self, cfg: DictConfig) -> None:
        """ConfigError if the run is illegal whatever its data."""
        from lmctl.jobs.training import check_legal

        check_legal(cfg)

    def run(self, config: Training) -> None:
        """Train in this process, or launch the worker processes."""
        from lmctl.jobs.training import train

        train(config)
