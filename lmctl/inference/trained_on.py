"""The training tasks of a run with their data, read from its config."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf.errors import OmegaConfBaseException

from lmctl.config.build import build
from lmctl.config.saved import recorded_config
from lmctl.core.errors import ConfigError, LmctlError
from lmctl.core.files import path_of
from lmctl.core.paths import Paths, run_of
from lmctl.data.base import Source
from lmctl.mix.mix import Mix
from lmctl.objective.base import Objective

UNREADABLE = (OmegaConfBaseException, LmctlError, OSError, ValueError, TypeError)
"""Errors of a run's config that is damaged, or of a later version."""


def trained_length(model_path: str) -> int | None:
    """Positions per row in the training of the run at `model_path`; None if it is no run, or does not say."""
    run = Paths(run_of(path_of(model_path)))
    try:
        return int(recorded_config(run).batch.seq_len) if run.config.is_file() else None
    except UNREADABLE:
        return None


@dataclass(frozen=True)
class OwnTask:
    """One task of a run."""

    source: Source
    objective: Objective
    seq_len: int


def own_tasks(model_path: str, trusted: tuple[str, ...], needed: bool) -> dict[str, OwnTask]:
    """The tasks of the run at `model_path`, by name; {} if it is no run directory, or if its config cannot be read and
    the tasks are not `needed`."""
    run = Paths(run_of(path_of(model_path)))
    if not run.config.is_file():
        return {}
    try:
        cfg = recorded_config(run)
        mix: Mix = build(cfg.mix, Mix, trusted=trusted)
        return {name: OwnTask(task.data, task.objective, int(cfg.batch.seq_len)) for name, task in mix.tasks.items()}
    except UNREADABLE as error:
        if not needed:
            return {}
        raise ConfigError(
            f"{run.config} does not say what the model was trained on: {str(error).splitlines()[0]}",
            "name the data: data=... data.path=...",
        ) from error
