"""Cross-entropy with its gradient in one pass over the logits, for CPUs.

`F.cross_entropy` writes the logarithms of all probabilities, reads them again for the gradient, and makes two more
tensors as large on the way. With 30,522 columns that is a twelfth of a small model's training step, most of it memory
that the kernel has to map. Here the gradient with respect to the logits, p - y, is computed in the forward pass, a few
rows at a time, so that all steps of a row happen in the cache of a core; nothing else of that size is made. It is plain
torch: what is left is `exp`, of which torch has a vectorised one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmctl.core.errors import LmctlError
from lmctl.kernels import backend

LEAST = 1 << 16
"""Logits below which F.cross_entropy is as fast."""
PART = 1 << 18
"""Logits that a thread has in its cache at a time: 1 MiB."""
IGNORED = -100
"""The label of rows that do not count, as in torch."""


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """`F.cross_entropy(..., reduction="sum")` of logits [N, C], in float32, against labels int64 [N]. Where its fused
    form is used (large logits on a CPU that need a gradient), `backward` works only once."""
    fused = logits.requires_grad and torch.is_grad_enabled() and logits.numel() >= LEAST and backend.takes(logits)
    if not fused:
        return F.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=label_smoothing)
    loss: Tensor = _CrossEntropy.apply(logits, labels, label_smoothing)
    return loss


class _CrossEntropy(torch.autograd.Function):
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
