"""Saving a run's config as YAML that reads back unchanged, and reading it as untrusted data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_omega_conf_dumper

from lmctl.core.errors import ConfigError
from lmctl.core.files import nearest_place, path_of
from lmctl.core.paths import Paths

MAX_BYTES = 1 << 20
_BREAKS = frozenset("\x85\u2028\u2029\ufeff")
"""Characters that YAML treats as a line break, or drops, outside double quotes."""


def config_text(config: Any) -> str:
    """`config`, plain data, as YAML; interpolations (`${...}`) stay unresolved."""
    return str(yaml.dump(config, Dumper=_dumper(), default_flow_style=False, allow_unicode=True, sort_keys=False))


def _dumper() -> Any:
    """OmegaConf's YAML dumper, which quotes text that looks like a number, extended by more characters to quote."""
    plain = get_omega_conf_dumper()

    class Dumper(plain):  # type: ignore[misc,valid-type]
        def analyze_scalar(self, scalar: str) -> Any:
            analysis = super().analyze_scalar(scalar)
            if not _BREAKS.isdisjoint(scalar):
                analysis.special_characters = True  # double quotes
                analysis.allow_flow_plain = analysis.allow_block_plain = False
                analysis.allow_single_quoted = analysis.allow_block = False
            return analysis

        def write_double_quoted(self, text: str, split: bool = True) -> None:
            unicode: bool = getattr(self, "allow_unicode", False)
            self.allow_unicode = unicode and _BREAKS.isdisjoint(text)
            super().write_double_quoted(text, split)
            self.allow_unicode = unicode

    return Dumper


def recorded_config(run: Paths) -> DictConfig:
    """The config that a run recorded, read as `read_config` does."""
    return OmegaConf.create(read_config(run.config))


def read_config(file: Path) -> dict[str, Any]:
    """The resolved config in `file` (or in the run directory `file`), as plain data."""
    path = path_of(str(file))
    path = path / "config.yaml" if path.is_dir() else path
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"--from {file}: larger than 1 MiB, so not the config of a run")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        if path_of(str(file)).is_dir():
            raise ConfigError(f"--from {file}: there is no config.yaml in it", "give a run's directory") from error
        raise ConfigError(
            f"--from {file}: {error.strerror}", nearest_place(path) or "give the config.yaml of a run"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--from {file}: not UTF-8 text, so not the config of a run") from error
    try:
        # Nested YAML anchors can expand to millions of nodes (a "billion laughs" file); the config of a run has none.
        if any(getattr(event, "anchor", None) is not None for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise ConfigError(f"--from {file}: has YAML anchors, which the config of a run never has")
        saved = OmegaConf.to_container(OmegaConf.create(text))
    except ConfigError:
        raise
    except (Exception, RecursionError) as error:
        raise ConfigError(f"--from {file}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(saved, dict) or "_target_" in saved:
        raise ConfigError(f"--from {file}: not the config of a run")
    for key in ("hydra", "defaults"):
        if key in saved:
            raise ConfigError(f"--from {file}: has a '{key}' entry, which the config of a run never has")
    return {str(key): value for key, value in saved.items()}
