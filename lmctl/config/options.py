"""Expanding option names: `objective: mlm_nsp` in a mix becomes the settings of that option.

A name may stand wherever an annotation has a component of a config group, and a named task needs no `_target_`. After
this step, and in the saved config of the run, all components are written out in full.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from lmctl.config.build import component_class, key_of, prefixes
from lmctl.config.groups import Run
from lmctl.config.mistakes import join
from lmctl.config.table import bases, groups_of, without_none
from lmctl.export.base import ExportFormat
from lmctl.objective.base import Objective
from lmctl.precision.base import Quantization

LoadOption: TypeAlias = Callable[[str, str, str], DictConfig]
"""(group, option name, key) -> the option's settings."""

GROUPS: dict[Any, str] = {
    **{base: name for name, base in bases(Run).items()},
    Objective: "objective",  # inside a mix
    Quantization: "quantize",  # of `lmctl eval` and `lmctl export`
    ExportFormat: "export",  # of `lmctl export`
}
"""The config group of each component type that may be given by name."""


def spell_out(cfg: DictConfig, schema: type[Any], load_option: LoadOption) -> None:
    """Replace every option name in `cfg` by the option's settings, in place."""
    trusted = prefixes(cfg.get("trusted") or ())
    for name in groups_of(schema):
        if name in cfg:
            _expand(cfg, name, name, load_option)
            _component(cfg._get_node(name), trusted, load_option)


def _expand(node: DictConfig, key: str, group: str, load_option: LoadOption) -> None:
    """If `node[key]` is a string, replace it by the settings of the option of that name."""
    if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
        return
    name = node[key]
    if isinstance(name, str):
        with open_dict(node):
            node[key] = load_option(group, name, join(key_of(node), key))


def _component(node: Any, trusted: tuple[str, ...], load_option: LoadOption) -> None:
    if isinstance(node, ListConfig) and not node._is_none():
        for child in node._iter_ex(resolve=False):
            _component(child, trusted, load_option)
    if not isinstance(node, DictConfig) or node._is_none() or node._is_interpolation() or "_target_" not in node:
        return
    hints = get_type_hints(component_class(node, trusted))
    for key in list(node):
        hint = without_none(hints.get(str(key)))
        if hint in GROUPS:
            _expand(node, str(key), GROUPS[hint], load_option)
        child = node._get_node(key)
        if is_dataclass(hint):
            _name_target(child, hint)
        if get_origin(hint) is dict and is_dataclass(inner := get_args(hint)[1]):
            for entry in _entries(child):
                _name_target(entry, inner)
                _component(entry, trusted, load_option)
        _component(child, trusted, load_option)


def _entries(node: Any) -> list[Any]:
    return list(node._content.values()) if isinstance(node, DictConfig) and isinstance(node._content, dict) else []


def _name_target(node: Any, cls: Any) -> None:
    """Add the default `_target_` to a value of a `dict[str, Task]`."""
    if isinstance(node, DictConfig) and not node._is_interpolation() and "_target_" not in node:
        with open_dict(node):
            node["_target_"] = f"{cls.__module__}.{cls.__qualname__}"
