"""Noise for stochastic rounding of updates, and rounding to bf16.

Stochastic rounding goes up with a probability equal to the fraction that is cut off, so that it is unbiased and
updates far below one step of the grid are preserved on average (Gupta et al. 2015, "Deep learning with limited
numerical precision", section 3). The noise has 16 bits: a multiple of 2^-16 of a grid step. For int8 weights
(`lmctl.kernels.plain.quantise`) that is 2^-23 of the largest weight of a row, the resolution of float32 there; for bf16
it is float32's resolution exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor


def noise16(shape: torch.Size, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """Uniform random int16 of `shape`. Each 64-bit random number gives four of them: on a CPU three times as fast as
    `torch.rand`."""
    size = shape.numel()
    lowest, count = -(2**63), ((size + 3) // 4,)
    draws = torch.randint(lowest, -lowest - 1, count, dtype=torch.int64, device=device, generator=generator)
    return draws.view(torch.int16)[:size].view(shape)


def to_bf16(values: Tensor, noise: Tensor | None = None) -> Tensor:
    """float32 to bf16, rounded to nearest, or with `noise` stochastically by the 16 bits that are cut off. Infinities
    and NaN stay, and the largest finite numbers do not overflow."""
    if noise is None:
        return values.to(torch.bfloat16)
    bits = values.contiguous().view(torch.int32)
    up = (bits + (noise.to(torch.int32) & 0xFFFF)) & -65536
    rounded = up.view(torch.float32)
    return torch.where(torch.isfinite(rounded) & torch.isfinite(values), rounded, values).to(torch.bfloat16)
