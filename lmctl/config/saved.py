"""Saving a run's config as YAML that reads back unchanged, and reading it as untrusted data."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_omega_conf_dumper

from lmctl.config.interpolations import OF_FILES, interpolations, refuse_explosion, refuse_resolvers
from lmctl.core import yaml_files
from lmctl.core.command_words import escaped
from lmctl.core.errors import ConfigError
from lmctl.core.files import nearest_place, path_of
from lmctl.core.paths import Paths

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


def read_config(file: Path, replaced: Container[str] = ()) -> dict[str, Any]:
    """The config in `file` (or in the run directory `file`) of `--from`, as plain data. ConfigError if it is none, or
    if it asks for more than a config may, except at the keys that will be `replaced`."""
    where, path = f"--from {file}", path_of(str(file))
    path = path / "config.yaml" if path.is_dir() else path
    try:
        text = yaml_files.read(path)
    except OSError as error:
        if path_of(str(file)).is_dir():
            raise ConfigError(f"{where}: there is no config.yaml in it", "give a run's directory") from error
        raise ConfigError(
            f"{where}: {error.strerror}", nearest_place(path) or "give the config.yaml of a run"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: not UTF-8 text, so not the config of a run") from error
    except ValueError as error:
        raise ConfigError(f"{where}: {error}, so not the config of a run") from error
    saved = _parsed(where, text)
    refuse_resolvers(where, _texts(saved, replaced=replaced))
    refuse_explosion(saved)
    return saved


def recorded_config(run: Paths) -> DictConfig:
    """The config that a run recorded, to look something up: what it reads from the environment is text here.
    ConfigError if it is none."""
    file = run.config
    try:
        saved = _parsed(str(file), yaml_files.read(file))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    refuse_explosion(saved)
    return OmegaConf.create(_unresolved(saved))


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """A config as plain data with its interpolations resolved, except those of environment variables and the like,
    whose values do not belong into a record."""
    plain = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=False))
    if any(map(_is_foreign, _texts(plain))):
        cfg = OmegaConf.create(_unresolved(plain))
    return cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))


def _parsed(where: str, text: str) -> dict[str, Any]:
    try:
        yaml_files.scalars(text)
        saved = OmegaConf.to_container(OmegaConf.create(text))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}, which the config of a run never has") from error
    except (Exception, RecursionError) as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(saved, dict) or "_target_" in saved:
        raise ConfigError(f"{where}: not the config of a run")
    for key in ("hydra", "defaults"):
        if key in saved:
            raise ConfigError(f"{where}: has a '{key}' entry, which the config of a run never has")
    return {str(key): value for key, value in saved.items()}


def _texts(node: Any, path: str = "", replaced: Container[str] = ()) -> Iterator[str]:
    """Every text in plain data, except at the dotted keys `replaced`."""
    if path in replaced:
        return
    if isinstance(node, str):
        yield node
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in entries:
        yield from _texts(child, f"{path}.{key}" if path else str(key), replaced)


def _is_foreign(text: str) -> bool:
    """Whether `text` calls a resolver that reads more than the config, or computes what it refers to."""
    return any(one.is_computed or one.resolver not in (None, *OF_FILES) for one in interpolations(text))


def _unresolved(node: Any) -> Any:
    """Plain data in which texts with foreign resolvers stand for themselves."""
    if isinstance(node, dict):
        return {key: _unresolved(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_unresolved(child) for child in node]
    return escaped(node) if isinstance(node, str) and _is_foreign(node) else node
