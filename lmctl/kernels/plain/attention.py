"""Softmax and dropout of attention scores in plain torch, and their backward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from lmctl.kernels.attention_tiles import Dropout, Tile, positions
from lmctl.kernels.counter import Key, bits
from lmctl.kernels.plain.arithmetic import LANES, exp2, lane_sum


def softmax(
    scores: Tensor, stats: Tensor, spans: Tensor, tile: Tile, keys: int, factor: float, dropout: Dropout | None
) -> None:
    """Replace the `scores` of a tile, float32 or bfloat16, by softmax(ln 2 * factor * scores) over the keys that each
    query sees, 0 elsewhere, dropped out. Fills `stats` float32 [2, R, A, Q] for `gradient`: the largest of a query, and
    one over its sum. `spans` int32 [R, Q, 2]; `keys`: how many there are in a row."""
    logits = _logits(scores, spans, tile, factor)
    largest = logits.amax(-1)
    power = exp2(logits - _finite(largest)[..., None])
    total = lane_sum(power)
    inverse = torch.where(total == 0, 0.0, 1.0 / total)
    stats[:, tile.rows, tile.heads, tile.queries] = torch.stack([largest, inverse])
    weights = power.mul_(inverse[..., None])
    scores.copy_(weights if dropout is None else weights.mul_(_kept(stats, tile, keys, dropout)))


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
    """Replace `scores` by the weights that `softmax` made of them, and the gradient `upstream` with respect to these by
    that with respect to the scores, times `scale`. `delta` float32 [G, B, n]: the sum over the tile's keys of weights
    times their gradients."""
    largest, inverse = stats[:, tile.rows, tile.heads, tile.queries, None]
    weights = exp2(_logits(scores, spans, tile, factor) - _finite(largest)).mul_(inverse)
    change = upstream.float()
    if dropout is None:
        scores.copy_(weights)
    else:
        kept = _kept(stats, tile, keys, dropout)
        change = change * kept
        scores.copy_(weights * kept)
    upstream.copy_(weights.mul_(change - delta[..., None]).mul_(scale))


def _logits(scores: Tensor, spans: Tensor, tile: Tile, factor: float) -> Tensor:
    """Scaled scores, minus infinity where a query does not see a key."""
    keys = torch.arange(tile.keys.start, tile.keys.stop, dtype=torch.int32)
    first, last = spans[tile.rows, None, tile.queries, :, None].unbind(-2)
    return torch.where((keys >= first) & (keys < last), scores.float() * factor, -torch.inf)


def _finite(largest: Tensor) -> Tensor:
    return torch.where(largest == -torch.inf, 0.0, largest)


def _kept(stats: Tensor, tile: Tile, keys: int, dropout: Dropout) -> Tensor:
    """float32 like the scores of `tile`: 0 where a weight is dropped, else the factor of those that are kept."""
    heads, queries = stats.shape[2:]
    rows, some, count = (part.stop - part.start for part in (tile.rows, tile.heads, tile.queries))
    each, wanted = positions(keys), slice(tile.keys.start // 2, positions(tile.keys.stop))
    at_once = some if count == queries else 1  # heads whose positions follow each other
    found = []
    for row in range(tile.rows.start, tile.rows.stop):
        for head in range(tile.heads.start, tile.heads.stop, at_once):
            start = dropout.key.k0 + ((row * heads + head) * queries + tile.queries.start) * each
            drawn = bits(at_once * count * each, Key(start & 0xFFFFFFFF, dropout.key.k1))
            found.append(drawn.view(at_once, count, each)[..., wanted])
    pairs = torch.cat(found).unflatten(-1, (-1, LANES // 2))
    kept = torch.stack([pairs & 0xFFFF, (pairs >> 16) & 0xFFFF], -2).flatten(-3) >= dropout.threshold
    return (kept[..., : tile.keys.stop - tile.keys.start] * dropout.scale).view(rows, some, count, -1)
