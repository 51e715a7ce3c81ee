"""Class labels: from labels of rows to arrays; the classes are those of the training split, in a fixed order."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from lmctl.core.batch import LabelKind, Row
from lmctl.core.errors import DataError
from lmctl.core.suggest import listed, nearest

SEPARATOR = ","
"""Separator of a row's labels, in multi-label data with one string per row."""

LOOK, MANY, FEW = 2_000, 1_000, 20
"""LOOK: rows after which labels that repeat are accepted as classes. MANY: more different labels than this, hardly any
of which repeats, are no classes. FEW: nor are more different fractions than this, if each occurs in less than about ten
rows."""

MOST_CELLS = 1 << 31
"""Limit of the multi-label table (rows x classes): 8 GiB."""

_WHOLE = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?")


class BadLabel(DataError):
    """A row's label is not of the task's kind, or not one of its classes."""


class Labels:
    """Encodes the labels of a split, row by row."""

    def __init__(self, kind: LabelKind, names: Sequence[str] | None, known_from: str = "the training split") -> None:
        """`names`: the classes, in order; None: they are collected from `known_from`."""
        self.kind, self.names, self.known_from = kind, names, known_from
        self.known = {name: place for place, name in enumerate(names or ())}
        self.numbers = array("d")
        self._codes: dict[str, int] = {}
        """Code of each class, in order of first occurrence."""
        self._found, self._per_row = array("q"), array("q")
        """Codes of all rows, concatenated, and the number of labels per row: 16 bytes for a row with one label."""

    def add(self, row: Row) -> None:
        """Encode the label of one row; BadLabel, without any change, if it is not valid."""
        if row.label is None:
            raise DataError(f"{row.where}: the row has no label", "say where labels are: data.label=COLUMN")
        if self.kind == "number":
            self.numbers.append(_number(row))
            return
        names = _several(row) if self.kind == "classes" else (_one(row),)
        if self.names is not None:
            for name in names:
                if name not in self.known:
                    close = nearest(name, self.known) if len(self.known) <= MANY else None  # slow for many classes
                    raise BadLabel(
                        f"{row.where}: label {name!r} does not occur in {self.known_from}"
                        + (f"; did you mean {close!r}?" if close else ""),
                        f"labels there: {listed(self.known)}",
                    )
        self._found.extend(self._codes.setdefault(name, len(self._codes)) for name in names)
        self._per_row.append(len(names))

    def arrays(self) -> tuple[np.ndarray, list[str]]:
        """The labels int64 [D], float32 [D, C] or float32 [D], and the names of the classes."""
        if self.kind == "number":
            return np.array(self.numbers, dtype=np.float32), []
        names = list(self.names) if self.names is not None else _in_order(self._codes)
        places = {name: place for place, name in enumerate(names)}
        found = np.array([places[name] for name in self._codes], dtype=np.int64)[np.array(self._found, dtype=np.int64)]
        if self.kind == "class":
            return found, names
        if len(self._per_row) * len(names) > MOST_CELLS:
            raise DataError(
                f"{len(names):,} different labels and {len(self._per_row):,} rows: a yes or no for each has no room",
                "is data.label the right column? For one label per row: objective.labels=class",
            )
        several = np.zeros((len(self._per_row), len(names)), dtype=np.float32)
        several[np.repeat(np.arange(len(self._per_row)), np.array(self._per_row, dtype=np.int64)), found] = 1.0
        return several, names


def labelled(rows: Iterable[Row], labels: Labels, skip: bool, left_out: list[str]) -> Iterator[list[str]]:
    """Yield the texts of `rows` and encode their labels; with `skip`, bad rows are left out and their errors appended
    to `left_out`."""
    for row in rows:
        try:
            labels.add(row)
        except BadLabel as error:
            if not skip:
                raise
            left_out.append(str(error))
        else:
            yield row.texts


def check_repeated(rows: Iterable[Row], kind: LabelKind | None, what: str) -> None:
    """Sanity check of labels: DataError if nearly every row has a label of its own (numbers or row names: nothing to
    learn), if labels are numbers or lists where one class is expected, or if all rows have the same label. `what`: the
    task, for messages. Reads only the first rows if there are different labels that repeat.
    """
    if kind not in ("class", "classes"):
        return
    setting = f"mix.tasks.{what}.objective.labels"
    names: set[str] = set()
    count = lists = 0
    for count, row in enumerate(rows, start=1):
        lists += isinstance(row.label, list)
        names.update(_several(row) if kind == "classes" or isinstance(row.label, list) else (_plain(row.label),))
        if count >= LOOK and 2 <= len(names) <= count // 2:
            break
    if kind == "class" and count and lists == count:
        raise DataError(
            f"{what}: every row has a list of labels, and one class is to be learnt",
            f"to learn several labels per row: {setting}=classes",
        )
    if (
        len(names) > max(FEW, count // 10)
        and all(map(_NUMBER.fullmatch, names))
        and not all(map(_WHOLE.fullmatch, names))
    ):
        example = next(name for name in sorted(names) if not _WHOLE.fullmatch(name))
        raise DataError(
            f"{what}: the labels are numbers such as {example}, and {len(names):,} of them would be a class each",
            f"to learn the numbers themselves: {setting}=number",
        )
    if count >= LOOK and 2 <= len(names) <= count // 2:
        return
    if len(names) < 2:
        raise one_label(what, next(iter(names), None))
    if len(names) > max(MANY, count // 2):
        raise DataError(
            f"{what}: {len(names):,} different labels in {count:,} rows, so most classes have a single row",
            f"is data.label the right column? For numbers: {setting}=number",
        )


def one_label(what: str, only: str | None) -> DataError:
    """The error for training rows that all have the label `only`, or none."""
    return DataError(
        f"{what}: a classifier needs at least two different labels, and the training split has "
        f"{'none' if only is None else f'only {only!r}'}",
        "is data.label the right column? For numbers: objective.labels=number",
    )


def _in_order(names: Iterable[str]) -> list[str]:
    """Sorted by value if all are whole numbers, else as text."""
    names = list(names)
    if all(_WHOLE.fullmatch(name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _one(row: Row) -> str:
    if isinstance(row.label, list):
        raise BadLabel(
            f"{row.where}: the row has a list of labels",
            "several labels per row: mix.tasks.TASK.objective.labels=classes",
        )
    return _plain(row.label)


def _several(row: Row) -> tuple[str, ...]:
    labels = row.label if isinstance(row.label, list) else _plain(row.label).split(SEPARATOR)
    return tuple(dict.fromkeys(name for label in labels if (name := _plain(label).strip())))


def _plain(label: object) -> str:
    """Label as text; 1.0, which some readers return for whole numbers, is the class "1"."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _number(row: Row) -> float:
    try:
        value = float(row.label)  # type: ignore[arg-type]
        with np.errstate(over="ignore"):
            finite = bool(np.isfinite(np.float32(value)))
    except (TypeError, ValueError, OverflowError):
        finite = False
    if not finite:
        raise BadLabel(
            f"{row.where}: label {row.label!r} is not a number that can be learnt",
            "classes instead: objective.labels=class; data.on_bad_row=skip leaves such rows out",
        )
    return value
