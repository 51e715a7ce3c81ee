"""Type and markers of each key of a composed config, as declared by the dataclasses behind it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass, replace
from functools import cache
from importlib import import_module
from typing import Annotated, Any, TypeAlias, cast, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf

from lmctl.config.build import TRUSTED
from lmctl.config.table import rows, without_none
from lmctl.core.paths import IsPlace

Steps: TypeAlias = "tuple[str | int, ...]"


@dataclass(frozen=True)
class Key:
    """One config key with its declared type."""

    path: Steps
    """The path to it, from the root; integers are list indices."""
    value: Any
    hint: Any
    """Its annotation without `Optional`; None if no dataclass declares it."""
    marks: frozenset[Any]
    """Markers such as `IsPlace`."""
    owner: type[Any]
    """The dataclass that declares it, or the mapping or list that contains it."""
    identity: bool = True
    """Whether it is part of the run's identity, so that a resumed run must not change it."""
    decides: bool = False
    """Whether it is so even in a group that is not (`core.component.DECIDES`)."""

    @property
    def name(self) -> str:
        """The dotted key."""
        first, *rest = self.path
        return str(first) + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in rest)

    @property
    def is_text(self) -> bool:
        """Whether its value is a string, whatever it looks like."""
        return self.hint is str or bool(self.marks)


def keys_of(config: Any, schema: type[Any], trusted: tuple[str, ...] = ()) -> Iterator[Key]:
    """Every key of `config`, the root of a verb's config as plain data, except inside components of packages that are
    neither ours nor `trusted`."""
    yield from _declared(config, schema, (*TRUSTED, *(f"{package}." for package in trusted)), ())


def keys_in(cfg: DictConfig, schema: type[Any]) -> Iterator[Key]:
    """The keys of a composed config, with interpolations unresolved."""
    trusted = cfg.get("trusted")
    names = tuple(map(str, trusted)) if isinstance(trusted, ListConfig) else ()
    yield from keys_of(OmegaConf.to_container(cfg, resolve=False), schema, names)


def expand_home(cfg: DictConfig, schema: type[Any]) -> None:
    """Expand `~` at the beginning of paths that no shell has expanded; in place."""
    for key in list(keys_in(cfg, schema)):
        if IsPlace in key.marks and isinstance(key.value, str) and key.value.startswith("~"):
            node: Any = cfg
            for step in key.path[:-1]:
                node = node._get_node(step)
            node[key.path[-1]] = os.path.expanduser(key.value)


def _declared(tree: Any, cls: type[Any], trusted: tuple[str, ...], path: Steps) -> Iterator[Key]:
    hints, known = _hints(cast("Any", cls)), rows(cls)
    for name, value in tree.items():
        if name != "_target_":
            marks = known[name].metadata if name in known else {}
            for key in _at((*path, str(name)), value, hints.get(str(name)), cls, trusted):
                key = replace(key, decides=key.decides or marks.get("decides", False))
                yield key if marks.get("identity", True) else replace(key, identity=False)


def _at(path: Steps, value: Any, hint: Any, owner: type[Any], trusted: tuple[str, ...]) -> Iterator[Key]:
    plain = without_none(hint)
    marks = frozenset(getattr(plain, "__metadata__", ()))
    bare = get_args(plain)[0] if get_origin(plain) is Annotated else plain
    yield Key(path, value, bare, marks, owner)
    if isinstance(value, dict):
        named = _named(value.get("_target_"), trusted)
        declared = named or (bare if is_dataclass(bare) else None)
        if declared is not None and isinstance(declared, type):
            yield from _declared(value, declared, trusted, path)
        elif "_target_" not in value:
            inner = get_args(bare)[1] if get_origin(bare) is dict else None
            for name, child in value.items():
                yield from _at((*path, str(name)), child, inner, owner, trusted)
    elif isinstance(value, list):
        inner = get_args(bare)[0] if get_origin(bare) in (list, tuple) and get_args(bare) else None
        for place, child in enumerate(value):
            yield from _at((*path, place), child, plain if marks else inner, owner, trusted)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _named(target: Any, trusted: tuple[str, ...]) -> type[Any] | None:
    """The dataclass that a `_target_` names; None if it is not one, or not trusted."""
    if not isinstance(target, str) or not target.startswith(trusted):
        return None
    module, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError):
        return None
    return found if isinstance(found, type) and is_dataclass(found) else None
