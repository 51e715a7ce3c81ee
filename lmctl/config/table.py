"""The table of a verb's config: each field of its dataclass declares one key or config group.

A config group is one field, `precision: Precision = group("fp32", "number formats")`: its base class, its default and
its purpose. Schema, defaults list, help, and the identity of a run are generated from the fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import Field, field, fields, make_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

MISSING: Any = "???"
"""OmegaConf's mark of a required value. It is not imported, because importing OmegaConf takes longer than the whole
help."""


def key(default: Any, help: str, aka: tuple[str, ...] = (), *, identity: bool = True, control: bool = True) -> Any:
    """A key with its default and one line of help; `aka`: names of it in other tools, for suggestions.

    `identity`: a run with another value is a different run, as which a checkpoint cannot be resumed. `control`: it also
    decides the control, a student without a teacher. Both apply to all keys of a section.
    """
    metadata = {"help": help, "aka": aka, "identity": identity, "control": control}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def group(
    default: str | None, help: str, *, identity: bool = True, control: bool = True, typed: str | None = None
) -> Any:
    """A config group with its default option and a few words of help; the annotation is the base class of its options.
    One whose default is None may be empty. `typed`: another name for it on the command line of this verb, which may be
    a key of other verbs."""
    return _group({"group": default, "purpose": help, "identity": identity, "control": control, "typed": typed})


def same(table: type[Any], name: str, **changes: Any) -> Any:
    """The group of that name in another table, with `changes` (`group=None`: it may be empty)."""
    return _group({**rows(table)[name].metadata, **changes})


def _group(metadata: Mapping[str, Any]) -> Any:
    default = None if metadata["group"] is None else dataclasses.MISSING
    return field(default=default, kw_only=True, metadata=metadata)


def rows(schema: type[Any]) -> dict[str, Field[Any]]:
    """The fields of a table by key."""
    return {row.name: row for row in fields(schema)}


def groups_of(schema: type[Any]) -> list[str]:
    """The keys that are config groups."""
    return [name for name, row in rows(schema).items() if is_group(row)]


def is_group(row: Field[Any]) -> bool:
    return "group" in row.metadata


def bases(schema: type[Any]) -> dict[str, type[Any]]:
    """The base class of each group."""
    hints = get_type_hints(schema)
    return {name: without_none(hints[name]) for name in groups_of(schema)}


def without_none(hint: Any) -> Any:
    """`X` for `Optional[X]`, anything else as it is."""
    if get_origin(hint) in (Union, UnionType):
        rest = [option for option in get_args(hint) if option is not type(None)]
        return rest[0] if len(rest) == 1 else hint
    return hint


def defaults(schema: type[Any]) -> dict[str, str | None]:
    """The default option of each group."""
    return {name: row.metadata["group"] for name, row in rows(schema).items() if is_group(row)}


def typed_names(schema: type[Any]) -> dict[str, str]:
    """Other names of groups on the command line -> the groups."""
    found = {row.metadata.get("typed"): name for name, row in rows(schema).items() if is_group(row)}
    return {typed: name for typed, name in found.items() if typed is not None}


def purposes(schema: type[Any]) -> dict[str, str]:
    """A short description of each group."""
    return {name: row.metadata["purpose"] for name, row in rows(schema).items() if is_group(row)}


def without(schema: type[Any], mark: str) -> tuple[str, ...]:
    """The keys whose `mark` (`identity` or `control`) is False."""
    return tuple(name for name, row in rows(schema).items() if not row.metadata.get(mark, True))


def structured(schema: type[Any]) -> Any:
    """The table as OmegaConf's structured config, in which a group may have any value."""
    from omegaconf import OmegaConf

    return OmegaConf.structured(make_dataclass(schema.__name__, list(_typed_rows(schema)), frozen=True))


def _typed_rows(schema: type[Any]) -> Iterator[tuple[str, Any, Any]]:
    hints: Mapping[str, Any] = get_type_hints(schema)
    for name, row in rows(schema).items():
        if row.default_factory is not dataclasses.MISSING:
            yield name, hints[name], field(default_factory=row.default_factory)
        else:
            default = MISSING if row.default is dataclasses.MISSING else row.default
            yield name, Any if is_group(row) else hints[name], field(default=default)
