"""Descriptions of all keys of a verb: type, default and purpose.

Those of sections are read from their dataclasses, those of components from the comments of their YAML files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import NoneType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf

from lmctl.config.build import TRUSTED, component_class
from lmctl.config.comments import commented_keys, targets_in
from lmctl.config.compose import Composer
from lmctl.config.table import groups_of, is_group
from lmctl.core.errors import ConfigError

KINDS: dict[Any, str] = {Any: "any", int: "int", float: "float", bool: "bool", str: "text", NoneType: "null"}


@dataclass(frozen=True)
class Described:
    """One config key with its type, default and purpose."""

    name: str
    """The dotted key: `optim.lr`."""
    kind: str
    """Its type in words: `int or null`."""
    default: str
    purpose: str
    """One line; empty if there is no comment."""
    option: str = ""
    """The option that has it; empty for keys of the verb itself."""


def own_keys(composer: Composer) -> list[Described]:
    """The keys of the verb itself, without those of component groups."""
    return list(_section(composer.schema, composer.compose([]), ""))


def option_keys(composer: Composer, group: str, option: str) -> list[Described]:
    """The keys of one option of a group, with the comments of its file; parts from other files have those files'
    comments."""
    file = composer.file_of(group, option)
    prefix = f"{group}."
    if group in component_groups(composer):  # inside the verb's config: options may choose options of other groups
        node = composer.option_in_place(group, option)
    elif file is not None and (text := file.read_text(encoding="utf-8")).startswith("# @package _global_"):
        node, prefix = _settings(text), ""
    else:
        node = composer.load_option(group, option)
    comments = {} if file is None else {key.key: key.comment for key in composer.keys(group, option)}
    return list(_component(node, composer, prefix, "", option, comments, type(None)))


def component_groups(composer: Composer) -> list[str]:
    """The verb's groups whose options are components; a recipe is not one, it sets keys of other groups."""
    return [group for group in groups_of(composer.schema) if group in composer.defaults]


def keys_named(composer: Composer, group: str, name: str) -> list[Described]:
    """The keys of all options of a group whose dotted name has the part `name`. Only options whose files mention it are
    composed."""
    found: list[Described] = []
    if not name:  # would match every key
        return found
    word = re.compile(rf"\b{re.escape(name)}\b")
    for option in composer.options(group):
        file = composer.file_of(group, option)
        text = "" if file is None else file.read_text(encoding="utf-8")
        if word.search(text) or "@" in text:  # `/objective@tasks.corpus.objective: mlm`
            found += [key for key in option_keys(composer, group, option) if name in key.name.split(".")[1:]]
    return found


def found(composer: Composer, word: str) -> list[Described]:
    """The keys that match `word`: a full name, a section, or a last part."""
    own = own_keys(composer)
    if own_section := [key for key in own if key.name == word or key.name.startswith(f"{word}.")]:
        return own_section
    group, _, rest = word.partition(".")
    if rest and group in component_groups(composer):
        below = keys_named(composer, group, rest.rpartition(".")[2])
        return [key for key in below if f".{word}." in f".{key.name}."] or [k for k in below if k.name.endswith(rest)]
    last = [key for key in own if key.name.endswith(f".{word}")]
    return last or [key for group in component_groups(composer) for key in keys_named(composer, group, word)]


def _settings(text: str) -> DictConfig:
    """The keys that a recipe sets, at the root of the config."""
    node = cast(DictConfig, OmegaConf.create(text))
    node.pop("defaults", None)
    return node


def _section(schema: type[Any], node: DictConfig, prefix: str) -> Iterator[Described]:
    hints = get_type_hints(schema)
    for field in fields(schema):
        hint = hints[field.name]
        if is_group(field):
            continue
        if is_dataclass(hint):
            yield from _section(hint, node[field.name], f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            purpose = str(field.metadata.get("help", ""))
            yield Described(f"{prefix}{field.name}", kind(hint), _default(node, field.name), purpose)


def _component(
    node: DictConfig, composer: Composer, prefix: str, path: str, option: str, comments: dict[str, str], cls: Any
) -> Iterator[Described]:
    hints: dict[str, Any] = {}
    if "_target_" in node:
        try:
            cls = component_class(node, TRUSTED)
            hints = get_type_hints(cls)
        except ConfigError:  # untrusted code is not imported for help; its YAML can still be shown
            cls = type(None)
    for name in map(str, node):
        if name == "_target_":
            continue
        child, place = node._get_node(name), f"{path}.{name}" if path else name
        if isinstance(child, DictConfig) and isinstance(child._content, dict) and len(child):
            yield from _component(child, composer, prefix, place, option, comments, cls)
            continue
        purpose = comments.get(place, "")
        if not purpose:  # from another file in conf/, for the same class or group
            elsewhere, named = _comments_by_key(composer), f"{cls.__module__}.{cls.__qualname__}"
            purpose = elsewhere.get((named, name)) or elsewhere.get((prefix.rstrip("."), name), "")
        yield Described(f"{prefix}{place}", kind(hints.get(name, Any)), _default(node, name), purpose, option)


@cache
def _comments_by_key(composer: Composer) -> dict[tuple[str, str], str]:
    """Comments on keys in the files of all options, by (class, key) and by (group, key)."""
    found: dict[tuple[str, str], str] = {}
    for group in composer.all_groups:
        for option in composer.options(group):
            text = file.read_text(encoding="utf-8") if (file := composer.file_of(group, option)) else ""
            targets = targets_in(text)
            for key in commented_keys(text):
                place, _, last = key.key.rpartition(".")
                if key.comment and place in targets:
                    found.setdefault((targets[place], last), key.comment)
                    found.setdefault((group, last), key.comment)
    return found


def kind(hint: Any) -> str:
    """A type as readable text: `int or null`."""
    if hint in KINDS:
        return KINDS[hint]
    if get_origin(hint) in (list, dict):
        return "list" if get_origin(hint) is list else "mapping"
    if get_origin(hint) is Union:
        return " or ".join(map(kind, get_args(hint)))
    return "component" if isinstance(hint, type) else str(hint)


def _default(node: DictConfig, name: str) -> str:
    if OmegaConf.is_missing(node, name):
        return "required"
    child = node._get_node(name)
    if isinstance(child, (DictConfig, ListConfig)):
        return json.dumps(OmegaConf.to_container(child, resolve=False), ensure_ascii=False)
    value = child._value() if child is not None else None
    return value if isinstance(value, str) else json.dumps(value)
