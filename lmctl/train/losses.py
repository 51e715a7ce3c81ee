"""Chunked losses: heads run chunk by chunk over the targets, so that the logits [N, V] need not fit into memory at
once.

All losses on the same logits (the objective's, a teacher's, the divergence of two passes) are weighted and divided
here, loss scale included. Results are one scalar for `backward`, and the unweighted values, detached, for the metrics.
Value and gradient of a chunk are computed together and its logits freed; kept for the backward pass are the gradients
with respect to hidden states [N, H] and the head's parameters. As in the fused losses of Liger Kernel (Hsu et al.
2024), but with several losses on the same logits. It costs no additional matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lmctl.core.errors import LmctlError
from lmctl.parallel.deterministic import deterministic

LOGITS_BYTES = 1 << 26
"""Memory limit of float32 logits, in bytes, unless a teacher's options have another one."""

Z_LOSS = "z_loss"
"""Name of `z_loss` among the losses of a term, with which it is not reported."""

ChunkLosses: TypeAlias = Callable[[Sequence[Tensor], slice], Sequence[Tensor]]
"""(hidden states [n, H] of each pass at the targets of a chunk, the slice of targets) -> K losses, summed."""


def weighed_losses(
    losses: ChunkLosses,
    weights: Sequence[float],
    hidden: Sequence[Tensor],
    parameters: Sequence[Tensor],
    chunks: Sequence[slice],
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the losses over all chunks, for `backward`; and the unweighted losses [K], detached.

    `hidden`: states [N, H] of each pass; `parameters`: those of the head; `chunks`: slices of the N targets. With
    several chunks gradients are computed in the forward pass, so `backward` works only once.
    """
    if len(chunks) > 1:
        return _Chunked.apply(losses, weights, chunks, torch.is_grad_enabled(), len(hidden), *hidden, *parameters)
    values = losses(hidden, slice(0, len(hidden[0])))
    weighed = [value * weight for value, weight in zip(values, weights, strict=True)]
    return sum(weighed[1:], weighed[0]), torch.stack([value.detach().float() for value in values])


def chunks_of(count: int, width: int, most_bytes: int) -> list[slice]:
    """Split `count` targets into chunks whose float32 logits of `width` columns have about `most_bytes`."""
    parts = max(1, -(-count * width * 4 // most_bytes))
    return [slice(part * count // parts, (part + 1) * count // parts) for part in range(parts)]


class _Chunked(torch.autograd.Function):
    """Autograd function of `weighed_losses` with several chunks: gradients are computed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, losses: ChunkLosses, weights: Any, chunks: Any, learns: bool, passes: int, *tensors: Tensor
    ) -> Any:
        hidden, parameters = tensors[:passes], tensors[passes:]
        weight = torch.tensor(weights, dtype=torch.float32, device=hidden[0].device)
        wanted = [p for p in parameters if p.requires_grad] if learns and any(weights) else []
        learns = bool(wanted) or (learns and any(weights) and any(h.requires_grad for h in hidden))
        by_hidden = [torch.zeros_like(states) for states in hidden] if learns else []
        by_parameter: list[Tensor | None] = [None for _ in wanted]
        total, kept = torch.zeros_like(weight), torch.zeros((), device=weight.device)
        for rows in chunks:
            with torch.set_grad_enabled(learns):
                states = [h.detach()[rows].requires_grad_(learns and h.requires_grad) for h in hidden]
                values = torch.stack([value.float() for value in losses(states, rows)])
                weighed = (values * weight).sum()
            total += values.detach()
            kept += weighed.detach()
            if learns:
                learning = [h for h in states if h.requires_grad]
                with deterministic(weight.device):
                    found = iter(torch.autograd.grad(weighed, [*learning, *wanted], allow_unused=True))
                for place, state in enumerate(states):
                    if state.requires_grad and (gradient := next(found)) is not None:
                        by_hidden[place][rows] = gradient
                for place, gradient in enumerate(found):
                    if gradient is not None:
                        before = by_parameter[place]
                        by_parameter[place] = gradient.float() if before is None else before.add_(gradient)
        ctx.passes, ctx.kept = passes, (by_hidden, by_parameter) if learns else None
        ctx.parameters = [(p.shape, p.dtype, p.device, p.requires_grad) for p in parameters]
        ctx.mark_non_differentiable(total)
        return kept, total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> Any:
        if ctx.kept is None:
            raise LmctlError("the gradients of losses in chunks can be asked for only once")
        (by_hidden, by_parameter), ctx.kept = ctx.kept, None
        states = [(h.float() * upstream).to(h.dtype) for h in by_hidden]
        found = iter(by_parameter)
        gradients: list[Tensor | None] = []
        for shape, dtype, device, learns in ctx.parameters:
            gradient = next(found) if learns else None
            if learns and gradient is None:
                gradient = torch.zeros(shape, device=device)
            gradients.append(None if gradient is None else gradient.mul_(upstream).to(dtype))
        return *(None,) * 5, *states, *gradients


def z_loss(logits: Tensor) -> Tensor:
    """The squared logarithm of the softmax's denominator Z, summed over the rows of logits [N, V], in float32. It keeps
    log Z near 0, where low precision resolves logits best and their growth does not end in divergence (Chowdhery et al.
    2022, PaLM, section 5; Zoph et al. 2022, ST-MoE, section 4)."""
    return torch.logsumexp(logits.float(), dim=-1).square().sum()


def zero_loss(parameters: Iterable[Tensor]) -> Tensor:
    """A loss of 0 with zero gradients for all trainable `parameters`, because DDP waits for a gradient of each; without
    a gradient if there are none."""
    learning = [p for p in parameters if p.requires_grad]
    return _Zero.apply(*learning) if learning else torch.zeros(())


class _Zero(torch.autograd.Function):
    """Autograd function of `zero_loss`. It does not read the parameters' values: stored weights have no memory."""

    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> Tensor:
        ctx.like = [(p.shape, p.dtype, p.device) for p in parameters]
        return torch.zeros((), device=parameters[0].device)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return tuple(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.like)
