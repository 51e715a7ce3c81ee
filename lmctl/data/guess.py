"""Guessing which columns are text and label, for hints in messages; it never affects what is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

from lmctl.core.suggest import listed

LABELS = ("label", "labels", "class", "category", "sentiment", "topic", "intent", "target", "score", "rating", "y")
"""Usual names of label columns."""


def how_to_label(where: str, option: str, path: str, text: str, rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Settings (keys begin with `where` and `data`) that make labelled rows of `rows`, which `data=option
    data.path=path` reads; `text` is the text column, if there is one."""
    columns = list(dict.fromkeys(str(name) for row in rows for name in row))
    if len(columns) < 2:
        return None
    cells = {name: [row[name] for row in rows if row.get(name) not in (None, "")] for name in columns}
    if text not in columns:
        text = max(columns, key=lambda name: sum(len(cell) for cell in cells[name] if isinstance(cell, str)))
    others = [name for name in columns if name != text and name.strip() and cells[name]]
    if not others:
        return None
    known = [name for name in others if name.lower() in LABELS]
    label = min(known, key=lambda name: LABELS.index(name.lower())) if known else min(others, key=_distinct(cells))
    group = f"data@{where}data" if where else "data"
    words = [f"{group}={option}", *(f"{where}data.{key}" for key in (f"path={path}", f"text={text}", f"label={label}"))]
    return f"its columns: {listed(columns)}; with labels: {' '.join(map(quote, words))}"


def _distinct(cells: Mapping[str, Sequence[Any]]) -> Any:
    """A key function: the number of distinct values of a column; a constant column is no label."""

    def count(name: str) -> int:
        found = len({repr(cell) for cell in cells[name]})
        return found if found > 1 else len(cells[name]) + 1

    return count
