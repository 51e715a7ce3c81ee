"""Rotary positions (Su et al. 2021, "RoFormer", section 3.2.2) in one pass over memory, and one more backward.

transformers' function makes them of some ten operations, each with a pass and half of them with results that are kept.
The backward pass of a rotation is another one, so nothing is kept but the angles.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lmctl.kernels import backend
from lmctl.kernels.kernel import Kernel
from lmctl.kernels.plain.rotary import Rotate
from lmctl.kernels.plain.rotary import rotated as plain

DTYPES = (torch.float32, torch.bfloat16)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate number i and number i + D/2 of each vector, for i < D/2, by the angle of its position.

    `x` [R, L, A, D], one of DTYPES on a CPU, D even; `cos` and `sin` of the angles, float32 [R or 1, L, D], which get
    no gradients. Returns a contiguous tensor like `x`; computed in float32."""
    result: Tensor = _Rotation.apply(x, cos.contiguous(), sin.contiguous())
    return result


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The transposed matrix: the sine of the other number, with the other sign."""
        cos, sin = ctx.saved_tensors
        return _rotated(gradient, cos, -sin.roll(sin.shape[-1] // 2, dims=-1)), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    x = x if x.stride(-1) == 1 else x.contiguous()
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if backend.has_data(x) and x.numel():
        ROTATED.function()(x, cos, sin, out)
    return out


def _compiled() -> Rotate:
    from lmctl.kernels.compiled.rotary import rotated

    return rotated


def _trial(rotated: Rotate) -> list[Tensor]:
    """A part of a larger tensor, in every dtype, with angles for all rows and for each."""
    x = torch.linspace(-3, 3, 2 * 5 * 3 * 4 * 40).view(2, 5, 3, 4, 40)[:, :, 1, 1:]
    angles = torch.linspace(0, 6, 2 * 5 * 40).view(2, 5, 40)
    outs = []
    for dtype in DTYPES:
        for rows in (1, 2):
            outs.append(torch.empty(x.shape, dtype=dtype))
            rotated(x.to(dtype), angles[:rows].cos(), angles[:rows].sin(), outs[-1])
    return outs


ROTATED: Kernel[Rotate] = Kernel("rotary positions", plain, _compiled, _trial)
