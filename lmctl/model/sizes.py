"""Validation of sizes, shared by all architectures."""

from __future__ import annotations

from typing import Any


def check_sizes(spec: Any, counts: tuple[str, ...], shares: tuple[str, ...]) -> None:
    """ValueError unless the fields `counts` of `spec` are at least 1 and `shares` are probabilities."""
    for name in counts:
        if getattr(spec, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(spec, name)}")
    for name in shares:
        if not 0 <= getattr(spec, name) < 1:
            raise ValueError(f"{name} is a probability below 1, got {getattr(spec, name)}")


def check_heads(hidden: int, heads: int) -> None:
    """ValueError unless the number of heads divides the width."""
    if hidden % heads:
        raise ValueError(f"hidden must be a multiple of heads, got {hidden} and {heads}")


def check_cell(cell: str) -> None:
    """ValueError unless `cell` is a supported recurrent cell."""
    if cell not in ("lstm", "gru"):
        raise ValueError(f"cell must be lstm or gru, got {cell!r}")


def rounded(size: int, multiple: int) -> int:
    """`size` rounded up to a multiple of `multiple`."""
    return -(-size // multiple) * multiple
