"""Building components from config nodes: unknown keys and wrong types become errors that name the key.

Hydra's own `instantiate` calls whatever `_target_` names, accepts any value for any key, and does not notice a file in
the wrong group. Here a target must be a dataclass of a trusted package, its fields are the allowed keys, and their
annotations the types.
"""

from __future__ import annotations

import importlib
import math
from abc import ABCMeta
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields, is_dataclass, make_dataclass, replace
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from lmctl.config.mistakes import Missing, Mistakes, UnknownKey, WrongName, join, wrong_value
from lmctl.config.table import bases, groups_of, rows, without_none
from lmctl.core.component import Component
from lmctl.core.errors import ConfigError
from lmctl.core.extras import require
from lmctl.core.suggest import nearest

C = TypeVar("C")

TRUSTED: tuple[str, ...] = ("lmctl.",)
"""Prefixes that a `_target_` may have; users add packages with `trusted=[...]`, files of a run never do."""


def prefixes(trusted: Iterable[str]) -> tuple[str, ...]:
    """Allowed prefixes of a `_target_` for a config with these trusted packages."""
    return (*TRUSTED, *(f"{package}." for package in trusted))


def build(node: Any, kind: Callable[..., C], *, trusted: tuple[str, ...] = TRUSTED) -> C:
    """Build the component that `node._target_` names from the node's other keys.

    `kind`, its required type, is an abstract class (which type checkers do not accept as `type[C]`) or one of our
    dataclasses.
    """
    wanted = cast(type[Any], kind)
    found = Mistakes()
    component = _build(node, wanted, trusted, found)
    found.tell()
    return cast(C, component)


def _build(node: Any, wanted: type[Any], trusted: tuple[str, ...], found: Mistakes) -> Any:
    """As `build`, but mistakes are appended to `found`; the result is then undefined."""
    if not isinstance(node, DictConfig):
        raise ConfigError(f"expected a component ({wanted.__name__}), got {node!r}")
    cls, before = component_class(node, trusted), len(found)
    component = _instantiate(cls, node, trusted, found)
    if len(found) == before and not isinstance(component, wanted):
        raise WrongName(
            f"{key_of(node)}: {cls.__name__} cannot serve as {wanted.__name__}",
            "is its file in the wrong config group? "
            f"Those of this one derive from {wanted.__module__}.{wanted.__name__}",
        )
    return component


def read_root(cfg: DictConfig, schema: type[C]) -> C:
    """The root of a verb's config with its groups built into components; null groups stay None. All mistakes are
    reported together: first wrong names, and wrong values only where all names are right."""
    trusted = prefixes(cfg.get("trusted") or ())
    found, components = Mistakes(), dict[str, Any]()
    found.names += _deleted_keys(cfg, schema)
    for name, base in bases(schema).items():
        if name in cfg and not OmegaConf.is_missing(cfg, name) and cfg[name] is not None:
            with found.caught():
                components[name] = _build(cfg[name], base, trusted, found)
    root = _instantiate(schema, cfg, None, found)
    found.tell()
    return cast(C, replace(cast(Any, root), **components))


def check(cfg: DictConfig, schema: type[Any]) -> None:
    """Check a verb's config without running the verb."""
    read_root(cfg, schema)


def _deleted_keys(cfg: DictConfig, schema: type[Any]) -> list[ConfigError]:
    """Errors for required keys that `~key` deleted."""
    return [Missing(name) for name in rows(schema) if name not in cfg]


def component_class(node: DictConfig, trusted: tuple[str, ...]) -> type[Any]:
    """The dataclass that `node._target_` names; WrongName if it is not trusted or no dataclass."""
    path, target = join(key_of(node), "_target_"), node.get("_target_")
    if target is None:
        raise WrongName(f"{path} is missing: nothing says which component this is")
    if not isinstance(target, str) or not target.startswith(trusted):
        package = str(target).partition(".")[0]
        raise WrongName(
            f"{path}={target} is outside the trusted packages ({', '.join(p.rstrip('.') for p in trusted)})",
            f"if the code is yours, add trusted=[{package}]",
        )
    module, _, name = target.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise WrongName(f"{path}={target} cannot be imported: {error}") from error
    if not (isinstance(cls, type) and is_dataclass(cls)):
        raise WrongName(f"{path}={target} is not a component (a dataclass)")
    return cls


def key_of(node: Any) -> str:
    """The dotted key of `node` in its config; empty for the root."""
    # OmegaConf drops the brackets of `row[1]` in the key of the node itself, but not in that of a key below it.
    return str(node._get_full_key("x"))[: -len(".x")]


def _instantiate(cls: type[Any], node: DictConfig, trusted: tuple[str, ...] | None, found: Mistakes) -> Any:
    """An instance of `cls` from the keys of `node`; with `trusted=None` component groups inside it stay nodes. Mistakes
    are appended to `found`; the result is then None."""
    path, before = key_of(node), len(found)
    known = {f.name: f for f in fields(cast(Any, cls)) if f.init}
    given = [str(key) for key in node if trusted is None or key != "_target_"]
    found.names += [UnknownKey(path, key, known) for key in given if key not in known]
    for name, field in known.items():
        no_default = field.default is MISSING and field.default_factory is MISSING
        if OmegaConf.is_missing(node, name) or (name not in given and no_default):
            found.names.append(Missing(join(path, name)))
            given = [key for key in given if key != name]
    hints, nodes = get_type_hints(cls), groups_of(cls) if trusted is None else ()
    settings: dict[str, Any] = {}
    for key in [key for key in given if key in known]:
        with found.caught():
            settings[key] = node[key] if key in nodes else _value(node, key, hints[key], trusted, found)
    # The rules of a root are checked even if one of its sections is wrong: they concern its own keys.
    if len(found) > before and (trusted is not None or len(settings) < len(given)):
        return None
    try:
        made = cls(**settings)
    except ValueError as error:
        found.values.append(ConfigError(_with_key(path, str(error), known)))
        return None
    if isinstance(made, Component):
        with found.caught():
            require(f"{path}: {cls.__name__} with these settings", made.imports)
    return made


def _with_key(path: str, message: str, known: Iterable[str]) -> str:
    """Prefix a rule's message with its key: `seq_len must be ...` becomes `batch.seq_len must be ...`."""
    if message.split(" ", 1)[0] in known:
        return join(path, message)
    return f"{path}: {message}" if path else message


def _value(node: DictConfig, key: str, hint: Any, trusted: tuple[str, ...] | None, found: Mistakes) -> Any:
    value, path = node[key], join(key_of(node), key)
    refuse_numbers(value, path)
    hint = without_none(hint) if value is not None else hint
    if trusted is None:
        if is_dataclass(hint) and isinstance(value, DictConfig):
            return _instantiate(cast(type[Any], hint), value, None, found)
        return value if hint is Any else _coerced(value, hint, path)
    inner = get_args(hint)[-1] if get_origin(hint) in (dict, list, tuple) else Any
    if isinstance(value, DictConfig) and "_target_" in value:
        return _build(value, _kind(hint), trusted, found)
    takes_components = is_component_type(inner)
    if isinstance(value, DictConfig) and (takes_components or len(value)) and all(map(_is_component, value.values())):
        return {str(name): _build(child, _kind(inner), trusted, found) for name, child in value.items()}
    if isinstance(value, ListConfig) and (takes_components or len(value)) and all(map(_is_component, value)):
        return [_build(child, _kind(inner), trusted, found) for child in value]
    if takes_components or is_component_type(hint):
        raise ConfigError(f"{path}: expected a component with a _target_, got {value!r}")
    return _coerced(value, hint, path)


def refuse_numbers(value: Any, path: str) -> None:
    """ConfigError for nan, infinity and integers beyond 64 bits, also inside lists and mappings."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path} must be a finite number, got {value}")
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise ConfigError(f"{path} must be below 2**63, got {value}")
    if isinstance(value, ListConfig) and not value._is_none():
        for child in value:
            refuse_numbers(child, path)
    if isinstance(value, DictConfig) and not value._is_none() and "_target_" not in value:
        for name in value:
            refuse_numbers(value[name], join(path, str(name)))


def is_component_type(hint: Any) -> bool:
    """Whether a value of this type is built from a `_target_`: an abstract class of ours, or a dataclass."""
    return isinstance(hint, ABCMeta) or (isinstance(hint, type) and is_dataclass(hint))


def _is_component(value: Any) -> bool:
    return isinstance(value, DictConfig) and "_target_" in value


def _kind(hint: Any) -> type[Any]:
    return hint if isinstance(hint, type) else object


def _coerced(value: Any, hint: Any, path: str) -> Any:
    """`value` coerced to the type `hint` by OmegaConf's own rules, so that YAML and the command line agree."""
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if value in choices:
            return value
        close = nearest(str(value), map(str, choices))
        hinted = f"; did you mean {close}?" if close else ""
        raise ConfigError(f"{path} must be one of {', '.join(map(str, choices))}, got {value}{hinted}")
    if hint is str and isinstance(value, str):
        return value  # unchanged: any `${x}` in it is literal, or resolved already
    if hint is str and isinstance(value, (bool, float)):
        raise ConfigError(
            f"{path} must be text, got {value}", "in YAML, text that looks like something else needs quotes"
        )
    try:
        cell = OmegaConf.structured(make_dataclass("Cell", [("value", hint)]))
    except ValidationError:  # a type that OmegaConf does not support
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    try:
        cell.value = value
        plain = OmegaConf.to_container(cell, resolve=True)
    except OmegaConfBaseException as error:
        raise wrong_value(path, error) from None
    converted = cast(dict[str, Any], plain)["value"]
    return tuple(converted) if get_origin(hint) is tuple else converted
