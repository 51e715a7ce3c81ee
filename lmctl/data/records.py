"""What stands in the columns of one record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lmctl.core.errors import ConfigError
from lmctl.core.suggest import did_you_mean

Record = Mapping[str, Any]


class BadRow(Exception):
    """What is wrong with one row, in words that follow its place."""


def value_of(record: Record, name: str) -> Any:
    """What stands in a column; ConfigError if there is no such column."""
    if name in record:
        return record[name]
    value: Any = record
    known: list[str] = list(map(str, record))
    for place, part in enumerate(parts := name.split(".")):  # a.b: inside a nested object
        if not isinstance(value, Mapping) or part not in value:
            raise no_column(name, known)
        value = value[part]
        if isinstance(value, Mapping):
            known = [".".join([*parts[: place + 1], str(key)]) for key in value]
    return value


def no_column(name: str, known: Iterable[str]) -> ConfigError:
    """What to raise where `name` is not among the columns that are `known`."""
    known = list(known)
    return ConfigError(f"no column {name!r}{did_you_mean(name, known)}", f"columns: {', '.join(known)}")


def text_of(record: Record, name: str) -> str:
    """The text of a column on one line, lists put end to end; BadRow if it is none, or empty."""
    value = value_of(record, name)
    if isinstance(value, list):
        value = " ".join(str(part) for part in value)
    if not isinstance(value, str):
        raise BadRow(f"column {name!r} is {'empty' if value is None else 'not text'}")
    text = " ".join(value.split())
    if not text:
        raise BadRow(f"column {name!r} is empty")
    return text


def plain(label: Any) -> str | float:
    """A label as `Row` wants it."""
    if isinstance(label, bool):
        return str(label).lower()
    return float(label) if isinstance(label, (int, float)) else str(label).strip()
