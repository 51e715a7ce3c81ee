"""Labels of rows as arrays: the classes are those of the training split, in a fixed order, stored with the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmctl.core.batch import LabelKind, Row
from lmctl.core.errors import DataError
from lmctl.core.suggest import nearest

SEPARATOR = ","
"""Between the labels of one row, where several may hold and they come as one string."""


class Labels:
    """Collects the labels of a split while its rows stream by."""

    def __init__(self, kind: LabelKind, names: Sequence[str] | None, known_from: str = "the training split") -> None:
        """`names`: the classes, in order; None while they are still to be found, in `known_from`."""
        self.kind, self.names, self.known_from = kind, names, known_from
        self.known = {name: place for place, name in enumerate(names or ())}
        self.found: list[tuple[str, ...]] = []
        self.numbers: list[float] = []

    def add(self, row: Row) -> None:
        """Take down the label of one row; DataError if it cannot be one."""
        if row.label is None:
            raise DataError(f"{row.where}: the row has no label", "say where labels are: data.label=COLUMN")
        if self.kind == "number":
            self.numbers.append(_number(row))
            return
        names = _several(row) if self.kind == "classes" else (_one(row),)
        if self.names is not None:
            for name in names:
                if name not in self.known:
                    close = nearest(name, self.known)
                    raise DataError(
                        f"{row.where}: label {name!r} does not occur in {self.known_from}"
                        + (f"; did you mean {close!r}?" if close else ""),
                        f"labels there: {', '.join(self.known)}",
                    )
        self.found.append(names)

    def arrays(self) -> tuple[np.ndarray, list[str]]:
        """The labels int64 [D], float32 [D, C] or float32 [D], and the names of the classes."""
        if self.kind == "number":
            return np.array(self.numbers, dtype=np.float32), []
        names = list(self.names) if self.names is not None else _in_order({n for row in self.found for n in row})
        places = {name: place for place, name in enumerate(names)}
        if self.kind == "class":
            return np.array([places[row[0]] for row in self.found], dtype=np.int64), names
        several = np.zeros((len(self.found), len(names)), dtype=np.float32)
        for place, row in enumerate(self.found):
            several[place, [places[name] for name in row]] = 1.0
        return several, names


def _in_order(names: set[str]) -> list[str]:
    """By value if all are whole numbers, by letter otherwise."""
    return sorted(names, key=lambda n: (0, int(n), n) if all(m.lstrip("-").isdigit() for m in names) else (0, 0, n))


def _one(row: Row) -> str:
    if isinstance(row.label, list):
        raise DataError(
            f"{row.where}: the row has a list of labels", "several labels per row: mix...objective.labels=classes"
        )
    return _plain(row.label)


def _several(row: Row) -> tuple[str, ...]:
    labels = row.label if isinstance(row.label, list) else _plain(row.label).split(SEPARATOR)
    return tuple(dict.fromkeys(name for label in labels if (name := _plain(label).strip())))


def _plain(label: object) -> str:
    """1.0, as some readers give whole numbers, is the class "1"."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _number(row: Row) -> float:
    try:
        value = float(row.label)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = float("nan")
    if not np.isfinite(value):
        raise DataError(f"{row.where}: label {row.label!r} is not a number", "classes instead: objective.labels=class")
    return value
