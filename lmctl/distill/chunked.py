"""Losses of a vocabulary projection, chunk by chunk, so that no logits of all targets are ever in memory.

Value and gradient of a chunk are computed together, and its logits forgotten; what is kept for the backward pass are
the gradients by the hidden states [N, H] and by the head's own weights. Like the fused losses of Liger Kernel (Hsu et
al. 2024), but with several losses on the same logits. It costs no product more than the plain way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lmctl.core.errors import LmctlError

SCALE = 128.0
"""A gradient by one target's logits is at most about 1, and in half precision its small parts would vanish."""


def leaves(tensor: Tensor) -> list[Tensor]:
    """The parameters that `tensor` was made of, each once."""
    found: dict[int, Tensor] = {}
    seen, waiting = set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            found[id(leaf)] = leaf
        waiting += [below for below, _ in node.next_functions]
    return list(found.values())


def chunked(
    losses: Callable[[Tensor, int], Tensor],
    chunks: Sequence[slice],
    weights: Sequence[float],
    hidden: Tensor,
    parameters: Sequence[Tensor],
) -> Tensor:
    """The losses float32 [K] of all chunks, summed. `losses(h, i)` gives those of the i-th chunk, whose hidden states
    are the rows `chunks[i]` of `hidden` [N, H]. What is kept is the gradient of their sum weighed by
    `weights` [K], by `hidden` and `parameters`: in whatever is made of the result, the K must count in these
    proportions."""
    return _Chunked.apply(losses, chunks, weights, hidden, *parameters)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, losses: Any, chunks: Any, weights: Any, hidden: Tensor, *parameters: Tensor) -> Tensor:
        ctx.weights = torch.tensor(weights, dtype=torch.float32, device=hidden.device)
        learns, wanted = any(weights), [hidden, *parameters]
        sums: list[Tensor | None] = [torch.zeros_like(hidden), *(None for _ in parameters)]
        total = torch.zeros_like(ctx.weights)
        for number, rows in enumerate(chunks):
            with torch.set_grad_enabled(learns):
                wanted[0] = hidden.detach()[rows].requires_grad_(learns)
                values = losses(wanted[0], number)
                total += values.detach()
                if learns:
                    loss = (values * (SCALE * ctx.weights)).sum()
                    found = torch.autograd.grad(loss, wanted, allow_unused=True)
                    _add(sums, found, rows)
        ctx.gradients, ctx.like = sums, wanted[1:]
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        weights, sums, ctx.gradients = ctx.weights, ctx.gradients, None
        if sums is None:
            raise LmctlError("distill: the gradients of a chunked loss can be asked for only once")
        factor = (upstream * weights).sum() / (weights * weights).sum().clamp_min(1e-30)
        checked = upstream.device.type == "cpu" and weights.any() and torch.isfinite(upstream).all()
        if checked and not torch.allclose(upstream, factor * weights, rtol=1e-4, atol=0.0):
            raise LmctlError("distill: terms of a lesson were weighed anew after their gradients were taken")
        factor = factor / SCALE
        by_hidden, *rest = sums
        by_parameters = (
            torch.zeros_like(parameter) if gradient is None else gradient.mul_(factor).to(parameter.dtype)
            for gradient, parameter in zip(rest, ctx.like, strict=True)
        )
        return None, None, None, (by_hidden.float() * factor).to(by_hidden.dtype), *by_parameters


def _add(sums: list[Tensor | None], found: Sequence[Tensor | None], rows: slice) -> None:
    """Put the gradients of a chunk, by its hidden states and by the parameters, into `sums`."""
    for place, gradient in enumerate(found):
        if gradient is None:
            continue
        before = sums[place]
        if place == 0:
            assert before is not None
            before[rows] = gradient
        else:
            sums[place] = gradient.float() if before is None else before.add_(gradient)
