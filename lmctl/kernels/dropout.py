"""Dropout (Srivastava et al. 2014) with masks from a counter: for the backward pass nothing is kept but a key.

`torch.nn.functional.dropout` on a CPU draws one number after the other and keeps a mask as large as its input. Here an
element is dropped where its 16 random bits (`lmctl.kernels.counter`) are below a threshold, and the backward pass makes
the same bits again. The key comes from torch's global generator of the CPU, so that gradient checkpointing, replays of
the generator's state and checkpoints of a run work as with torch's own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmctl.kernels import backend
from lmctl.kernels.counter import BLOCK, Key, next_key
from lmctl.kernels.kernel import Kernel
from lmctl.kernels.plain.dropout import Masked
from lmctl.kernels.plain.dropout import masked as plain

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
STEPS = 1 << 16
"""Probabilities are multiples of 1 / STEPS."""


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """`F.dropout`: each element of `x` is 0 with probability `p`, rounded to 16 bits, else divided by 1 - p, rounded
    likewise, so that the mean is that of `x`. Of float32, bfloat16 and float16 on a CPU; F.dropout itself computes all
    else, and what torch.compile traces."""
    threshold = round(p * STEPS)
    if not training or not 0 < threshold < STEPS or x.dtype not in DTYPES or not backend.takes(x):
        return F.dropout(x, p, training)
    dropped: Tensor = _Dropout.apply(x, next_key(), threshold)
    return dropped


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, key: Key, threshold: int) -> Tensor:
        ctx.key, ctx.threshold = key, threshold
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        if backend.has_data(x):
            MASKED.function()(x.contiguous(), out, key, threshold, STEPS / (STEPS - threshold))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Dropout.apply(gradient, ctx.key, ctx.threshold), None, None


def _compiled() -> Masked:
    from lmctl.kernels.compiled.dropout import masked

    return masked


def _trial(masked: Masked) -> list[Tensor]:
    """Two full blocks and a part of one, in every dtype."""
    x = torch.linspace(-3, 3, 2 * BLOCK + 700)
    outs = [torch.empty_like(x, dtype=dtype) for dtype in DTYPES]
    for out in outs:
        masked(x.to(out.dtype), out, Key(0xFFFFFF00, 0x9E3779B9), 0x2000, 8 / 7)
    return outs


MASKED: Kernel[Masked] = Kernel("dropout", plain, _compiled, _trial)
