"""Attention on CPU tensors tile by tile: softmax with dropout, over spans of keys instead of a mask.

torch's fused CPU kernel knows no dropout, and computes what a mask hides. Here scores are computed for some queries at
a time by torch's matrix product, then made weights and dropped out in one pass of a kernel. Kept for the backward pass
are inputs, output, and two numbers per query (Dao et al. 2022, "FlashAttention", section 3.1); scores and dropout's
random bits are computed again, the latter from a key.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lmctl.kernels import backend
from lmctl.kernels.attention_tiles import Dropout, Panel, Tile, panels
from lmctl.kernels.counter import Key, next_key
from lmctl.kernels.kernel import Kernel
from lmctl.kernels.plain import attention as plain

Softmax: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tile, int, float, Dropout | None], None]
Gradient: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tile, int, float, float, Dropout | None], None]


def attention(query: Tensor, key: Tensor, value: Tensor, spans: Tensor, scale: float, dropout: float = 0.0) -> Tensor:
    """dropout(softmax(scale * query key^T over the keys that each query sees)) value, contiguous [R, Q, A, D].

    `query` [R, A, Q, D], `key` and `value` [R, A, K, D]: on the CPU, all float32 or all bfloat16. `spans` int32
    [R or 1, Q, 2]: a query sees the keys from the first to before the second; its output is 0 if there are none.
    `dropout`: the probability that a weight is dropped, rounded to a multiple of 2^-16; the key of its random bits is
    drawn from torch's generator of the CPU.
    """
    threshold = round(dropout * 65536)
    drop = Dropout(next_key(), threshold, 65536 / (65536 - threshold)) if threshold else None
    spans = spans.expand(len(query), -1, -1).contiguous()
    output: Tensor = _Attention.apply(query, key, value, spans, scale, drop)
    return output


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, spans: Tensor, scale: float, drop: Dropout | None
    ) -> Tensor:
        rows, heads, queries, _ = query.shape
        output = query.new_empty(rows, queries, heads, value.shape[-1])
        stats = query.new_empty(2, rows, heads, queries, dtype=torch.float32)
        ctx.scale, ctx.drop = scale, drop
        ctx.save_for_backward(query, key, value, spans, output, stats)
        if backend.has_data(query):
            _forward(query, key, value, spans, output, stats, scale, drop)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        query, key, value, spans, output, stats = ctx.saved_tensors
        gradients = [torch.empty_like(t.transpose(1, 2)).transpose(1, 2) for t in (query, key, value)]
        if backend.has_data(query):
            _backward(query, key, value, spans, output, stats, ctx.scale, ctx.drop, upstream, gradients)
        return *gradients, None, None, None


def _forward(
    query: Tensor, key: Tensor, value: Tensor, spans: Tensor, output: Tensor, stats: Tensor, scale: float,
    drop: Dropout | None,
) -> None:  # fmt: skip
    """Fill `output` [R, Q, A, D] and `stats` [2, R, A, Q]."""
    softmax, factor, length = SOFTMAX.function(), scale * math.log2(math.e), key.shape[2]
    *parts, first, second = (Scratch(query.dtype) for _ in range(5))
    for panel in panels(spans.numpy(), query.shape[1], length):
        queries, keys, values = map(Scratch.part, parts, (query, key, value), (panel,) * 3)
        for tile in panel.tiles:
            q, k, v = queries[:, tile.queries], keys[:, tile.keys], values[:, tile.keys]
            scores = torch.bmm(q, k.mT, out=first.of(*q.shape[:2], k.shape[1]))
            softmax(_by_row(scores, panel), stats, spans, tile, length, factor, drop)
            found = torch.bmm(scores, v, out=second.of(*q.shape[:2], v.shape[2]))
            output[panel.rows, tile.queries, panel.heads] = _by_row(found, panel).transpose(1, 2)


def _backward(
    query: Tensor, key: Tensor, value: Tensor, spans: Tensor, output: Tensor, stats: Tensor, scale: float,
    drop: Dropout | None, upstream: Tensor, gradients: list[Tensor],
) -> None:  # fmt: skip
    """Fill the `gradients` of query, key and value."""
    gradient, factor, length = GRADIENT.function(), scale * math.log2(math.e), key.shape[2]
    *parts, first, second, third = (Scratch(query.dtype) for _ in range(7))
    products, of_keys, of_values = (Scratch(torch.float32) for _ in range(3))
    read = (query, key, value, upstream.transpose(1, 2))
    outputs = output.transpose(1, 2)
    for panel in panels(spans.numpy(), query.shape[1], length):
        queries, keys, values, upstreams = map(Scratch.part, parts, read, (panel,) * 4)
        totals = of_keys.of(*keys.shape).zero_(), of_values.of(*values.shape).zero_()
        for tile in panel.tiles:
            q, k, v, up = queries[:, tile.queries], keys[:, tile.keys], values[:, tile.keys], upstreams[:, tile.queries]
            weighed = products.of(*up.shape).copy_(up)
            _by_row(weighed, panel).mul_(outputs[panel.rows, panel.heads, tile.queries])
            delta = _by_row(weighed.sum(-1), panel)
            scores = torch.bmm(q, k.mT, out=first.of(*q.shape[:2], k.shape[1]))
            change = torch.bmm(up, v.mT, out=second.of(*scores.shape))
            weights, changes = _by_row(scores, panel), _by_row(change, panel)
            gradient(weights, changes, stats, delta, spans, tile, length, factor, scale, drop)
            found = torch.bmm(change, k, out=third.of(*q.shape))
            gradients[0][panel.rows, panel.heads, tile.queries] = _by_row(found, panel)
            for total, left, right in zip(totals, (change, scores), (q, up), strict=True):
                found = torch.bmm(left.mT, right, out=third.of(len(q), k.shape[1], right.shape[2]))
                total[:, tile.keys] += found
        for one, total in zip(gradients[1:], totals, strict=True):
            one[panel.rows, panel.heads] = _by_row(total, panel)


class Scratch:
    """Memory for the results of one tile after the other."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.memory = torch.empty(0, dtype=dtype)

    def of(self, *shape: int) -> Tensor:
        """Uninitialised and contiguous; what was there before is lost."""
        size = math.prod(shape)
        if size > len(self.memory):
            self.memory = self.memory.new_empty(size)
        return self.memory[:size].view(shape)

    def part(self, tensor: Tensor, panel: Panel) -> Tensor:
        """A copy of the panel's part of [R, A, L, D] as [G * B, L, D]: `bmm` would copy it each time it is read."""
        part = tensor[panel.rows, panel.heads]
        return self.of(*part.shape).copy_(part).flatten(0, 1)


def _by_row(tensor: Tensor, panel: Panel) -> Tensor:
    """[G * B, ...] as [G, B, ...]."""
    return tensor.unflatten(0, (panel.rows.stop - panel.rows.start, -1))


def _compiled_softmax() -> Softmax:
    from lmctl.kernels.compiled.attention import softmax

    return softmax


def _compiled_gradient() -> Gradient:
    from lmctl.kernels.compiled.attention import gradient

    return gradient


TILE, KEYS = Tile(slice(0, 2), slice(0, 2), slice(0, 5), slice(0, 40)), 40
SPANS = torch.tensor([[0, 40], [0, 1], [7, 33], [3, 3], [32, 40]], dtype=torch.int32).expand(2, -1, -1).contiguous()
"""Of a trial: two rows, two heads, five queries, of which one sees nothing, and more keys than lanes."""


def _try_softmax(function: Softmax) -> list[Tensor]:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        for drop in (None, Dropout(Key(0xFFFFFF00, 0x9E3779B9), 0x2000, 8 / 7)):
            scores, stats = torch.linspace(-9, 9, 800).view(2, 2, 5, 40).to(dtype), torch.zeros(2, 2, 2, 5)
            function(scores, stats, SPANS, TILE, KEYS, 1.3, drop)
            found += [scores, stats]
    return found


def _try_gradient(function: Gradient) -> list[Tensor]:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        for drop in (None, Dropout(Key(0xFFFFFF00, 0x9E3779B9), 0x2000, 8 / 7)):
            scores = torch.linspace(-9, 9, 800).view(2, 2, 5, 40).to(dtype)
            upstream, stats = scores.flip(-1), torch.stack([torch.full((2, 2, 5), 9.0), torch.full((2, 2, 5), 0.5)])
            function(scores, upstream, stats, torch.full((2, 2, 5), 0.25), SPANS, TILE, KEYS, 1.3, 0.7, drop)
            found += [scores + 0.0, upstream + 0.0]  # the sign of a zero may differ
    return found


SOFTMAX: Kernel[Softmax] = Kernel("attention", plain.softmax, _compiled_softmax, _try_softmax)
GRADIENT: Kernel[Gradient] = Kernel("attention gradient", plain.gradient, _compiled_gradient, _try_gradient)
