"""The one place where heads are called for a loss: chunk by chunk over the targets where their logits [N, V] would take
too much memory.

Everything that looks at the same logits (the objective's loss, a teacher's, the comparison of two passes) is weighed
and divided here, the loss scale included: what comes out is one number to go backward from, and the unweighted values
beside it, detached, for the record. Value and gradient of a chunk are computed together and its logits forgotten; what
is kept for the backward pass are the gradients by the hidden states [N, H] and by the head's own parameters. Like the
fused losses of Liger Kernel (Hsu et al. 2024), but with several losses on the same logits. It costs no product more
than the plain way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lmctl.core.errors import LmctlError
from lmctl.train.deterministic import deterministic

LOGITS_BYTES = 1 << 26
"""Float32 logits that are in memory at a time, unless a teacher's options say otherwise."""

ChunkLosses: TypeAlias = Callable[[Sequence[Tensor], slice], Sequence[Tensor]]
"""(hidden states [n, H] of each pass at the targets of a chunk, which targets these are) -> K losses, summed."""


def weighed_losses(
    losses: ChunkLosses,
    weights: Sequence[float],
    hidden: Sequence[Tensor],
    parameters: Sequence[Tensor],
    chunks: Sequence[slice],
) -> tuple[Tensor, Tensor]:
    """The sum over all chunks of the losses, each times its weight, to go backward from; and the losses [K], detached.

    `hidden`: states [N, H] of each pass, `parameters`: those of the head, `chunks`: the N targets in parts. With
    several chunks gradients are taken at once, so that they must be asked for only once.
    """
    if len(chunks) > 1:
        return _Chunked.apply(losses, weights, chunks, torch.is_grad_enabled(), len(hidden), *hidden, *parameters)
    values = losses(hidden, slice(0, len(hidden[0])))
    weighed = [value * weight for value, weight in zip(values, weights, strict=True)]
    return sum(weighed[1:], weighed[0]), torch.stack([value.detach().float() for value in values])


def chunks_of(count: int, width: int, most_bytes: int) -> list[slice]:
    """`count` targets in chunks, so that float32 logits `width` wide of a chunk fill about `most_bytes`."""
    parts = max(1, -(-count * width * 4 // most_bytes))
    return [slice(part * count // parts, (part + 1) * count // parts) for part in range(parts)]


class _Chunked(torch.autograd.Function):
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


def zero_loss(parameters: Iterable[Tensor]) -> Tensor:
    """A loss of 0 with a gradient of 0 for those of `parameters` that learn, because DDP waits for a gradient of every
    one; without a gradient if there are none."""
    learning = [p for p in parameters if p.requires_grad]
    return _Zero.apply(*learning) if learning else torch.zeros(())


class _Zero(torch.autograd.Function):
    """Never looks at the parameters' values, which may not be there."""

    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> Tensor:
        ctx.like = [(p.shape, p.dtype, p.device) for p in parameters]
        return torch.zeros((), device=parameters[0].device)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return tuple(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.like)
