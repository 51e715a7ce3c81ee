"""What a run has chosen for itself when it began, in the place of `auto` in its recorded config.

Whoever reads the record (resuming, `--from`, a control, `lmctl eval` of a checkpoint) finds an ordinary option there,
and a run that goes on computes as it began, also on a machine where it would choose otherwise.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError

from lmctl.config.saved import recorded_config
from lmctl.core.paths import Paths
from lmctl.model.attention import Attending
from lmctl.plan import Plan
from lmctl.precision.auto import Auto
from lmctl.precision.base import Precision

PRECISION, ATTENTION, LOSS = "precision", "model.attention", "cross_entropy"


def with_recorded_choices(cfg: DictConfig) -> DictConfig:
    """The config of a run that goes on, with what it chose when it began; any other config as it is."""
    try:
        run = Paths(Path(cfg.run_dir))
    except InterpolationResolutionError:  # checking the whole config says which key it is
        return cfg
    return cfg if cfg.resume in (False, "false") or not run.config.exists() else with_choices_of(run, cfg)


def with_choices_of(run: Paths, cfg: DictConfig) -> DictConfig:
    """The config with what `run` has recorded in the place of `auto`."""
    asked = [key for key in (PRECISION, ATTENTION, LOSS) if _is_auto(cfg, key)]
    if not asked:
        return cfg
    recorded = recorded_config(run)
    chosen = {key: OmegaConf.select(recorded, key) for key in asked if not _is_auto(recorded, key)}
    return _replaced(cfg, {key: value for key, value in chosen.items() if value is not None})


def with_choices(cfg: DictConfig, plan: Plan) -> DictConfig:
    """The config with what `plan` has chosen in the place of `auto`."""
    chosen: dict[str, Any] = {}
    if _is_auto(cfg, PRECISION):
        chosen[PRECISION] = _written(plan.precision)
    if isinstance(plan.model, Attending) and _is_auto(cfg, ATTENTION):
        chosen[ATTENTION] = plan.model.attention
    if _is_auto(cfg, LOSS):
        chosen[LOSS] = plan.cross_entropy
    return _replaced(cfg, chosen)


def _is_auto(cfg: DictConfig, key: str) -> bool:
    found = OmegaConf.select(cfg, key)
    return bool((found._target_ == f"{Auto.__module__}.{Auto.__qualname__}") if key == PRECISION else found == "auto")


def _written(precision: Precision) -> dict[str, Any]:
    kind, fields = type(precision), cast("Any", precision)  # every option is a dataclass
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **asdict(fields)}


def _replaced(cfg: DictConfig, chosen: dict[str, Any]) -> DictConfig:
    if not chosen:
        return cfg
    changed = cfg.copy()
    with open_dict(changed):
        for key, value in chosen.items():
            OmegaConf.update(changed, key, value, merge=False)
    return changed
