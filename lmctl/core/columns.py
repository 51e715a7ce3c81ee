"""Names and what they mean in two columns, folded at the width of the terminal: help texts and lists."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence

WIDEST = 100
"""Columns of help texts, at most."""
WHOLE = 100_000
"""Width at which nothing is folded."""


def terminal_width() -> int:
    """Width of help texts in columns."""
    return min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)


def line_width() -> int:
    """Columns of the terminal that standard output is; of a file or a pipe, where lines stay whole, a great many."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else WHOLE


def table(rows: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Two columns, the second one wrapped."""
    left = max((len(name) for name, _ in rows), default=0)
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, max(20, width - left - 4)) or [""]
        lines.append(f"  {name:<{left}}  {wrapped[0]}".rstrip())
        lines += [f"  {'':<{left}}  {line}" for line in wrapped[1:]]
    return lines
