"""Values of a record's columns, validated as texts and labels."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from lmctl.core.suggest import listed, nearest

Record = Mapping[str, Any]

SKIP = "data.on_bad_row=skip leaves such rows out"

_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
"""Zero-width characters: a label with nothing else is empty."""


class BadRow(Exception):
    """The error in one row, worded to follow its position; `hint` is a remedy other than skipping it."""

    def __init__(self, problem: str, hint: str | None = None) -> None:
        super().__init__(problem)
        self.hint = f"{hint}; {SKIP}" if hint else SKIP


class NoColumn(BadRow):
    """A row without the column `name`; `known` are its columns."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name, self.known = name, dict.fromkeys(printable(str(column)) for column in known)
        super().__init__(f"no column {name!r}")

    def as_well(self, other: BadRow) -> NoColumn | None:
        """Both rows' columns merged, if the other row lacks the same one."""
        if not isinstance(other, NoColumn) or other.name != self.name:
            return None
        return self if other.known.keys() <= self.known.keys() else NoColumn(self.name, self.known | other.known)

    def __str__(self) -> str:
        close = nearest(self.name, self.known)
        return f"no column {self.name!r}" + (f"; did you mean {close}?" if close else "")

    @property
    def columns(self) -> str:
        """The available columns as text."""
        return f"columns: {listed(self.known)}" if self.known else "there are no columns"


def outermost(name: str, columns: Container[str]) -> str | None:
    """The column named `name`, or the one with the longest name that contains the nested key `a.b`; None if there is
    none."""
    while name not in columns:
        name, dot, _ = name.rpartition(".")
        if not dot:
            return None
    return name


def value_of(record: Record, name: str) -> Any:
    """The value of a column, or at the nested key `a.b`, None where an outer object is null; NoColumn if it is
    missing."""
    value, taken, rest = record, "", name
    while rest not in value:
        if (outer := outermost(rest, value)) is None:
            raise NoColumn(name, [f"{taken}{key}" for key in value])
        inner = value[outer]
        if inner is None:
            return None
        if not isinstance(inner, Mapping):
            raise NoColumn(name, map(str, record))
        value, taken, rest = inner, f"{taken}{outer}.", rest[len(outer) + 1 :]
    return value[rest]


def texts_of(record: Record, name: str) -> list[str]:
    """The texts in a column, each on one line: one, or those of a list; BadRow if it is no text, or empty."""
    value = value_of(record, name)
    parts = value if isinstance(value, list) else [value]
    if value is None or not parts:
        raise BadRow(f"column {name!r} is empty")
    texts = [" ".join(_string(part, name, isinstance(value, list)).split()) for part in parts]
    texts = [text for text in texts if text]
    if not texts:
        raise BadRow(f"column {name!r} is empty")
    return texts


def label_of(record: Record, name: str) -> str | float | list[Any]:
    """The label in a column, or its list of labels; integers stay exact. BadRow if it is no label."""
    value = value_of(record, name)
    if isinstance(value, list):
        return [_label(part, f"column {name!r} is a list, and one of its labels") for part in value]
    return _label(value, f"column {name!r}")


def _string(value: Any, name: str, in_list: bool) -> str:
    if isinstance(value, bytes):  # text columns of some parquet writers
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise BadRow(f"column {name!r} is not text but bytes that are not UTF-8") from None
    if isinstance(value, str):
        return _refuse_surrogates(value, f"column {name!r}")
    where = "a list with" if in_list else "not text but"
    raise BadRow(f"column {name!r} is {where} {_kind(value)}")


def _label(value: Any, what: str) -> str | float:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise BadRow(f"{what} is bytes that are not UTF-8") from None
    if isinstance(value, str):
        label = value.strip()
        if not label.strip(_INVISIBLE):
            raise BadRow(f"{what} is empty")
        return _refuse_surrogates(label, what)
    if value is None:
        raise BadRow(f"{what} is empty")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real | Decimal):
        return _number(value, what)
    raise BadRow(f"{what} is no label but {_kind(value)}")


def _number(value: Real | Decimal, what: str) -> float:
    number = float(value)
    if math.isnan(number):
        raise BadRow(f"{what} is empty (NaN)")
    if math.isinf(number):
        raise BadRow(f"{what} is infinite")
    if isinstance(value, Decimal) and abs(number) < 1e40 and value == value.to_integral_value():
        return int(value)
    return number


def _refuse_surrogates(text: str, what: str) -> str:
    """`text`, or BadRow if it has an unpaired surrogate, which JSON can encode."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadRow(
                f"{what} has half a character (\\u{ord(text[error.start]):04x}, a surrogate without its other half)"
            ) from None
    return text


def printable(text: str) -> str:
    """`text` with unpaired surrogates escaped, so that any terminal can print it."""
    return text.encode(errors="backslashreplace").decode()


def _kind(value: Any) -> str:
    """The JSON type of a value."""
    kinds: dict[type, str] = {bool: "true or false", int: "a number", float: "a number", list: "a list in it"}
    kinds |= {type(None): "null", str: "a string"}
    return (
        "an object" if isinstance(value, Mapping) else kinds.get(type(value), f"a value of type {type(value).__name__}")
    )
