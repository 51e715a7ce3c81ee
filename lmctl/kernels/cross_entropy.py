"""Cross-entropy with its gradient in few passes over the logits, for CPUs.

`F.cross_entropy` writes the logarithms of all probabilities, reads them again for the gradient, and makes two more
tensors as large on the way. With 30,522 columns that is a tenth of a small model's training step. `fused` keeps two
numbers per row and computes the exponentials again in the backward pass, in registers, where the gradient is written
as it is wanted, in bfloat16 for bfloat16 logits (as attention does: Dao et al. 2022, section 3.1). Without compiled
kernels that would be slow, so there is `torch`: its vectorised `exp`, and the gradient computed in the forward pass, a
few rows at a time, so that all steps of a row happen in the cache of a core. Both are right to float32; their last bits
differ, so a run keeps to the one that it began with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from lmctl.core.errors import LmctlError
from lmctl.kernels import backend
from lmctl.kernels.kernel import Kernel
from lmctl.kernels.plain import cross_entropy as plain

Statistics: TypeAlias = Callable[[Tensor, Tensor, bool], None]
Gradient: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]

LEAST = 1 << 16
"""Logits below which F.cross_entropy is as fast."""
PART = 1 << 18
"""Logits that a thread has in its cache at a time: 1 MiB."""
IGNORED = -100
"""The label of rows that do not count, as in torch."""


_choice = "auto"


def use(choice: str) -> None:
    """Compute with "fused" or "torch" from now on; "auto": fused where kernels are compiled."""
    global _choice
    _choice = choice


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """`F.cross_entropy(..., reduction="sum")` of logits [N, C], in float32, against labels int64 [N]. Large logits on a
    CPU that need a gradient go through `_Fused`, or `_InParts`, whose `backward` works only once."""
    large = logits.requires_grad and torch.is_grad_enabled() and logits.numel() >= LEAST and backend.takes(logits)
    if not large:
        return F.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=label_smoothing)
    fused = _choice == "fused" or (_choice == "auto" and backend.compiled())
    known = logits.dtype in (torch.float32, torch.bfloat16)
    loss: Tensor = (_Fused if fused and known else _InParts).apply(logits, labels, label_smoothing)
    return loss


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        logits, stats = logits.contiguous(), logits.new_empty(3, len(logits), dtype=torch.float32)
        if backend.has_data(logits):
            STATISTICS.function()(logits, stats, smoothing > 0)
        ctx.smoothing = smoothing
        ctx.save_for_backward(logits, labels, stats)
        largest, total, plain_sum = stats
        at = logits.gather(1, labels.clamp_min(0)[:, None])[:, 0].float()
        losses = largest * math.log(2) + total.log() - (1 - smoothing) * at
        if smoothing:
            losses -= plain_sum * (smoothing / logits.shape[1])
        return torch.where(labels == IGNORED, 0.0, losses).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        logits, labels, stats = ctx.saved_tensors
        counts, smoothing = (labels != IGNORED).float() * upstream.float(), ctx.smoothing
        factors = torch.stack([counts / stats[1], counts * (smoothing / logits.shape[1]), counts * (1 - smoothing)])
        gradient = torch.empty_like(logits)
        if backend.has_data(logits):
            GRADIENT.function()(logits, labels.clamp_min(0), stats, factors, gradient)
        return gradient, None, None


class _InParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        count, width = logits.shape
        counts = (labels != IGNORED).float()[:, None]
        at = labels.clamp_min(0)[:, None]
        losses = logits.gather(1, at).float().mul_(smoothing - 1)
        gradient = torch.empty_like(logits, dtype=torch.float32, memory_format=torch.contiguous_format)
        rows = max(1, PART * torch.get_num_threads() // width)
        for first in range(0, count, rows):
            part = slice(first, first + rows)
            values = gradient[part].copy_(logits[part])
            if smoothing:
                losses[part].sub_(values.mean(1, keepdim=True), alpha=smoothing)
            largest = values.amax(1, keepdim=True)
            total = values.sub_(largest).exp_().sum(1, keepdim=True)
            losses[part].add_(total.log()).add_(largest)
            values.mul_(counts[part] / total)
            if smoothing:
                values.sub_(counts[part], alpha=smoothing / width)
        gradient.scatter_add_(1, at, counts * (smoothing - 1))
        ctx.gradient, ctx.dtype = gradient, logits.dtype
        return losses.mul_(counts).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        if ctx.gradient is None:
            raise LmctlError("the gradient of a fused cross-entropy can be asked for only once")
        gradient, ctx.gradient = ctx.gradient, None
        return gradient.mul_(upstream).to(ctx.dtype), None, None


def _compiled_statistics() -> Statistics:
    from lmctl.kernels.compiled.cross_entropy import statistics

    return statistics


def _compiled_gradient() -> Gradient:
    from lmctl.kernels.compiled.cross_entropy import gradient

    return gradient


WIDTH = 75
"""Columns of a trial: more than lanes, and not a multiple of them."""


def _trials() -> list[Tensor]:
    return [torch.linspace(-30, 30, 4 * WIDTH).view(4, WIDTH).to(dtype) for dtype in (torch.float32, torch.bfloat16)]


def _try_statistics(function: Statistics) -> list[Tensor]:
    found = []
    for logits in _trials():
        for sums in (False, True):
            stats = torch.zeros(3, len(logits))
            function(logits, stats, sums)
            found.append(stats)
    return found


def _try_gradient(function: Gradient) -> list[Tensor]:
    found = []
    for logits in _trials():
        stats, factors = torch.full((3, len(logits)), 40.0), torch.linspace(0.01, 1, 12).view(3, 4)
        result = torch.empty_like(logits)
        function(logits, torch.tensor([0, 31, 32, WIDTH - 1]), stats, factors, result)
        found.append(result + 0.0)  # the sign of a zero may differ
    return found


STATISTICS: Kernel[Statistics] = Kernel("cross-entropy", plain.statistics, _compiled_statistics, _try_statistics)
GRADIENT: Kernel[Gradient] = Kernel("cross-entropy gradient", plain.gradient, _compiled_gradient, _try_gradient)
