"""A run, fully decided: every group option has become its component, and every rule about two of them holds."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from lmctl.config.build import build, check_root, section
from lmctl.config.schema import (
    BatchShape,
    Budget,
    Checkpointing,
    EarlyStop,
    Evaluation,
    Logging,
    TrainConfig,
)
from lmctl.core.errors import ConfigError
from lmctl.core.types import ModelSpec, OptimSpec, Precision, Schedule, Source, TokenizerSpec, Where
from lmctl.mix.mix import Mix, Task

COMPONENTS = {
    "model": ModelSpec,
    "data": Source,
    "mix": Mix,
    "tokenizer": TokenizerSpec,
    "precision": Precision,
    "optim": OptimSpec,
    "schedule": Schedule,
    "runner": Where,
}
SECTIONS = {
    "budget": Budget,
    "batch": BatchShape,
    "eval": Evaluation,
    "checkpoint": Checkpointing,
    "early_stop": EarlyStop,
    "log": Logging,
}


@dataclass(frozen=True)
class Plan:
    """What a training run is made of. After this nobody sees a config."""

    model: ModelSpec
    data: Source
    mix: Mix
    tokenizer: TokenizerSpec
    precision: Precision
    optim: OptimSpec
    schedule: Schedule
    runner: Where
    budget: Budget
    batch: BatchShape
    eval: Evaluation
    checkpoint: Checkpointing
    early_stop: EarlyStop
    log: Logging
    name: str | None
    run_dir: str
    resume: str
    seed: int
    cache_dir: str | None
    clip_norm: float | None
    gradient_checkpointing: bool
    compile: bool

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Plan:
        """Check and build everything in `cfg`; the first mistake ends in a `ConfigError` that names its key."""
        check_root(cfg, TrainConfig)
        trusted = ("lmctl.", *(f"{package}." for package in cfg.trusted))
        return cls(
            **{key: build(cfg[key], kind, trusted=trusted) for key, kind in COMPONENTS.items()},
            **{key: section(cfg[key], kind) for key, kind in SECTIONS.items()},
            **{key: cfg[key] for key in cls.__dataclass_fields__ if key not in COMPONENTS | SECTIONS},
        )

    def __post_init__(self) -> None:
        if self.batch.seq_len > self.model.max_positions:
            raise ConfigError(
                f"batch.seq_len={self.batch.seq_len} is longer than the model's {self.model.max_positions} positions",
                f"set batch.seq_len={self.model.max_positions} or model.max_positions={self.batch.seq_len}",
            )
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ConfigError(f"clip_norm must be above 0, got {self.clip_norm}", "null switches clipping off")
        if len(self.mix.tasks) != 1:
            raise ConfigError(
                f"mix.tasks names {len(self.mix.tasks)} tasks ({', '.join(self.mix.tasks)}), and a run trains one",
                "keep one task; nearest: mix=mlm_nsp, which has two objectives on the same text",
            )

    @property
    def task(self) -> tuple[str, Task]:
        """The run's task and its name."""
        return next(iter(self.mix.tasks.items()))
