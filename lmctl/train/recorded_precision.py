"""The precision that a run with `precision=auto` has chosen, in the place of `auto` in its recorded config.

Whoever reads the record (resuming, `--from`, a control, `lmctl eval` of a checkpoint) finds an ordinary option there.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf, open_dict

from lmctl.config.saved import recorded_config
from lmctl.core.paths import Paths
from lmctl.precision.auto import Auto
from lmctl.precision.base import Precision

TARGET = "precision._target_"


def with_recorded_choice(cfg: DictConfig) -> DictConfig:
    """The config of a run that goes on, with the precision that it chose when it began; any other config as it is."""
    if not _is_auto(cfg) or cfg.resume in (False, "false"):
        return cfg
    paths = Paths(Path(cfg.run_dir))
    recorded = recorded_config(paths) if paths.config.exists() else cfg
    return cfg if _is_auto(recorded) else _replaced(cfg, OmegaConf.to_container(recorded.precision))


def with_precision(cfg: DictConfig, chosen: Precision) -> DictConfig:
    """The config with `chosen` in the place of `precision=auto`; any other config as it is."""
    if not _is_auto(cfg):
        return cfg
    kind, fields = type(chosen), cast("Any", chosen)  # every option is a dataclass
    return _replaced(cfg, {"_target_": f"{kind.__module__}.{kind.__qualname__}", **asdict(fields)})


def _is_auto(cfg: DictConfig) -> bool:
    return bool(OmegaConf.select(cfg, TARGET) == f"{Auto.__module__}.{Auto.__qualname__}")


def _replaced(cfg: DictConfig, precision: Any) -> DictConfig:
    changed = cfg.copy()
    with open_dict(changed):
        changed.precision = precision
    return changed
