"""Softmax and dropout of attention scores, compiled: see `lmctl.kernels.plain.attention`."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from torch import Tensor

from lmctl.kernels.attention_tiles import Dropout, Tile, positions
from lmctl.kernels.backend import in_threads
from lmctl.kernels.compiled.arithmetic import (
    LOWEST,
    NONE,
    exp2,
    lane_sum,
    largest_of,
    load,
    numbers,
    single,
    store,
)  # fmt: skip
from lmctl.kernels.compiled.counter import LOW, S16, bits, word
from lmctl.kernels.compiled.jit import kernel
from lmctl.kernels.counter import Key
from lmctl.kernels.plain.arithmetic import LANES

ONE = single(1)
PAIRS = LANES // 2
NOTHING = Dropout(Key(0, 0), 0, 1.0)


def softmax(
    scores: Tensor, stats: Tensor, spans: Tensor, tile: Tile, keys: int, factor: float, dropout: Dropout | None
) -> None:
    """`plain.attention.softmax`."""
    arrays = (numbers(scores), stats.numpy(), spans.numpy())
    settings = (single(factor), *_placed(tile, keys), *_drawing(dropout))
    in_threads(lambda start, end: _softmax(*arrays, *settings, start, end), scores[..., 0].numel(), scores.numel())


def gradient(
    scores: Tensor,
    upstream: Tensor,
    stats: Tensor,
    delta: Tensor,
    spans: Tensor,
    tile: Tile,
    keys: int,
    factor: float,
    scale: float,
    dropout: Dropout | None,
) -> None:
    """`plain.attention.gradient`."""
    arrays = (numbers(scores), numbers(upstream), stats.numpy(), delta.numpy(), spans.numpy())
    settings = (single(factor), single(scale), *_placed(tile, keys), *_drawing(dropout))
    in_threads(lambda start, end: _gradient(*arrays, *settings, start, end), scores[..., 0].numel(), scores.numel())


def _placed(tile: Tile, keys: int) -> tuple[int, ...]:
    return tile.rows.start, tile.heads.start, tile.queries.start, tile.keys.start, positions(keys)


def _drawing(dropout: Dropout | None) -> tuple[Any, ...]:
    key, threshold, scale = dropout or NOTHING
    return word(key.k0), word(key.k1), word(threshold), single(scale)


@numba.njit(inline="always")
def logits(row, value, low, high, factor):  # type: ignore[no-untyped-def]
    """Scaled scores of the keys that are seen, minus infinity around them."""
    value[:low] = LOWEST
    value[high:] = LOWEST
    seen, source = value[low:high], row[low:high]
    for k in range(len(source)):
        seen[k] = single(load(source[k]) * factor)


@numba.njit(inline="always")
def drop(value, base, k0, k1, threshold, scale):  # type: ignore[no-untyped-def]
    """0 where a weight is dropped, else `scale`."""
    for group in range(len(value) // LANES):
        for lane in range(PAIRS):
            drawn = bits(word(base + word(group * PAIRS + lane)), k0, k1)
            value[group * LANES + lane] = NONE if word(drawn & LOW) < threshold else scale
            value[group * LANES + PAIRS + lane] = NONE if word(drawn >> S16) < threshold else scale


@numba.njit(inline="always")
def fill(row, number):  # type: ignore[no-untyped-def]
    for k in range(len(row)):
        row[k] = store(number, row[k])


@kernel
def _softmax(  # type: ignore[no-untyped-def]
    scores, stats, spans, factor, first_row, first_head, first_query, first_key, positions_each,
    k0, k1, threshold, scale, start, end,
):  # fmt: skip
    _, heads, queries, keys = scores.shape
    padded = -(-keys // LANES) * LANES
    values, kepts, lanes = np.empty(padded, np.float32), np.empty(padded, np.float32), np.empty(LANES, np.float32)
    for number in range(start, end):
        group, head, query = number // (heads * queries), number // queries % heads, number % queries
        r, a, q = first_row + group, first_head + head, first_query + query
        row = scores[group, head, query]
        low, high = max(0, spans[r, q, 0] - first_key), min(keys, spans[r, q, 1] - first_key)
        if high <= low:
            fill(row, NONE)
            stats[0, r, a, q], stats[1, r, a, q] = LOWEST, NONE
            continue
        begin, stop = low // LANES * LANES, -(-high // LANES) * LANES
        value, seen = values[: stop - begin], row[begin:stop]
        logits(seen, value, low - begin, high - begin, factor)
        most = largest_of(value, lanes)
        for k in range(len(value)):
            value[k] = exp2(single(value[k] - most))
        total = lane_sum(value, lanes)
        one = NONE if total == NONE else single(ONE / total)
        stats[0, r, a, q], stats[1, r, a, q] = most, one
        if threshold:
            kept = kepts[: stop - begin]
            base = word(((r * stats.shape[2] + a) * stats.shape[3] + q) * positions_each + (first_key + begin) // 2)
            drop(kept, base, k0, k1, threshold, scale)
            for k in range(len(seen)):
                seen[k] = store(single(single(value[k] * one) * kept[k]), seen[k])
        else:
            for k in range(len(seen)):
                seen[k] = store(single(value[k] * one), seen[k])
        fill(row[:begin], NONE)
        fill(row[stop:], NONE)


@kernel
def _gradient(  # type: ignore[no-untyped-def]
    scores, upstream, stats, delta, spans, factor, multiplied, first_row, first_head, first_query, first_key,
    positions_each, k0, k1, threshold, scale, start, end,
):  # fmt: skip
    _, heads, queries, keys = scores.shape
    padded = -(-keys // LANES) * LANES
    values, kepts = np.empty(padded, np.float32), np.empty(padded, np.float32)
    for number in range(start, end):
        group, head, query = number // (heads * queries), number // queries % heads, number % queries
        row, changes = scores[group, head, query], upstream[group, head, query]
        r, a, q = first_row + group, first_head + head, first_query + query
        low, high = max(0, spans[r, q, 0] - first_key), min(keys, spans[r, q, 1] - first_key)
        if high <= low:
            fill(row, NONE)
            fill(changes, NONE)
            continue
        begin, stop = low // LANES * LANES, -(-high // LANES) * LANES
        value, seen, change = values[: stop - begin], row[begin:stop], changes[begin:stop]
        logits(seen, value, low - begin, high - begin, factor)
        most, one, mean = stats[0, r, a, q], stats[1, r, a, q], delta[group, head, query]
        for k in range(len(value)):
            value[k] = single(exp2(single(value[k] - most)) * one)
        if threshold:
            kept = kepts[: stop - begin]
            base = word(((r * stats.shape[2] + a) * stats.shape[3] + q) * positions_each + (first_key + begin) // 2)
            drop(kept, base, k0, k1, threshold, scale)
            for k in range(len(seen)):
                seen[k] = store(single(value[k] * kept[k]), seen[k])
                shift = single(single(load(change[k]) * kept[k]) - mean)
                change[k] = store(single(single(value[k] * shift) * multiplied), change[k])
        else:
            for k in range(len(seen)):
                seen[k] = store(value[k], seen[k])
                change[k] = store(single(single(value[k] * single(load(change[k]) - mean)) * multiplied), change[k])
        fill(row[:begin], NONE)
        fill(row[stop:], NONE)
        fill(changes[:begin], NONE)
        fill(changes[stop:], NONE)
