"""Rules about sizes that all architectures share."""

from __future__ import annotations

from typing import Any


def check_sizes(spec: Any, counts: tuple[str, ...], shares: tuple[str, ...]) -> None:
    """ValueError unless the fields `counts` are at least 1, `shares` are probabilities, and heads divide the width."""
    for name in counts:
        if getattr(spec, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(spec, name)}")
    for name in shares:
        if not 0 <= getattr(spec, name) < 1:
            raise ValueError(f"{name} is a probability below 1, got {getattr(spec, name)}")
    if "heads" in counts and spec.hidden % spec.heads:
        raise ValueError(f"hidden must be a multiple of heads, got {spec.hidden} and {spec.heads}")


def check_cell(cell: str) -> None:
    """ValueError unless `cell` is one that recurrent networks are made of."""
    if cell not in ("lstm", "gru"):
        raise ValueError(f"cell must be lstm or gru, got {cell!r}")


def rounded(size: int, multiple: int) -> int:
    """`size`, up to the next `multiple`."""
    return -(-size // multiple) * multiple
