"""Tiles of attention scores: the blocks in which `lmctl.kernels.attention` computes.

A query sees a span of keys: all real keys of its row, those up to itself, those of its document, those near it. So no
mask of queries by keys is needed, and keys that no query of a tile sees are not computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lmctl.kernels.counter import Key
from lmctl.kernels.plain.arithmetic import LANES  # two keys of a group of so many share the random bits of a position

QUERIES = 128
"""Most queries of a tile."""
SCORES = 1 << 18
"""Most scores of a tile, about, so that they stay in the cache of a core."""


class Dropout(NamedTuple):
    """Which weights are dropped: those whose 16 random bits are below `threshold`."""

    key: Key
    threshold: int
    scale: float
    """Factor of the weights that are kept."""


class Tile(NamedTuple):
    """Scores [G, B, n, w] of G rows, B heads, n queries and w keys, by their places in [R, A, Q, K]."""

    rows: slice
    heads: slice
    queries: slice
    keys: slice
    """Empty if the queries see none. It starts at a multiple of LANES."""


class Panel(NamedTuple):
    """The tiles that have rows and heads in common."""

    rows: slice
    heads: slice
    tiles: list[Tile]
    """All queries, in order."""


def positions(keys: int) -> int:
    """Positions of random bits that belong to a query with so many keys."""
    return -(-keys // LANES) * (LANES // 2)


def panels(spans: np.ndarray, heads: int, keys: int) -> Iterator[Panel]:
    """What is to be computed, in order. `spans` int32 [R, Q, 2]: each query sees the keys from the first to before the
    second. Shapes of products, and so their last bits, do not depend on other rows: short rows are computed together,
    with all of their keys."""
    rows, queries = spans.shape[:2]
    block = min(QUERIES, queries)
    together = _together(queries, heads, keys)
    starts = range(0, queries, block)
    lows, highs = _seen(spans)
    for row in range(0, rows, together):
        group = slice(row, min(rows, row + together))
        seen = list(zip(lows[row].tolist(), highs[row].tolist(), strict=True))
        if together > 1:
            seen = [(0, keys)] * len(starts)
        widest = max(1, *(high - low for low, high in seen))
        some = max(1, SCORES // (block * widest))
        for head in range(0, heads, some):
            part = slice(head, min(heads, head + some))
            queries_of = (slice(start, min(queries, start + block)) for start in starts)
            keys_of = (slice(low, max(low, high)) for low, high in seen)
            yield Panel(group, part, [Tile(group, part, q, k) for q, k in zip(queries_of, keys_of, strict=True)])


def share(spans: np.ndarray, heads: int, keys: int) -> float:
    """The part of all scores that the tiles of `panels` have."""
    if _together(spans.shape[1], heads, keys) > 1:
        return 1.0
    lows, highs = _seen(spans)
    return float(np.maximum(highs - lows, 0).mean() / keys)


def _together(queries: int, heads: int, keys: int) -> int:
    """How many rows are computed together."""
    return max(1, SCORES // (heads * min(QUERIES, queries) * keys))


def _seen(spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first key that some query of a tile sees, or one before it, and the one after the last: each [R, tiles]."""
    starts = range(0, spans.shape[1], QUERIES)
    lows = np.minimum.reduceat(spans[..., 0], starts, axis=1) // LANES * LANES
    return lows, np.maximum.reduceat(spans[..., 1], starts, axis=1)
