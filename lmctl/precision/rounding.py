"""Rounding: symmetric int8 with a scale per row, stochastic rounding, and bf16.

Stochastic rounding goes up with a probability equal to the fraction that is cut off, so that it is unbiased and
updates far below one step of the grid are preserved on average (Gupta et al. 2015, "Deep learning with limited
numerical precision", section 3). The noise has 16 bits: a multiple of 2^-16 of a grid step. For int8 weights that is
2^-23 of the largest weight of a row, the resolution of float32 there; for bf16 it is float32's resolution exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LEVELS = 127
"""Symmetric int8: -128 is not used."""
TINY = 1e-30
"""Smallest scale: for rows of zeros, so that its inverse is finite."""


class QuantisedRows(NamedTuple):
    """Quantised values [M, N] and their float32 scales, [M, 1] or [1, N] (one per row or column); dequantised: their
    product."""

    values: Tensor
    scale: Tensor

    def t(self) -> QuantisedRows:
        return QuantisedRows(self.values.t(), self.scale.t())


def noise16(shape: torch.Size, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """Uniform random int16 of `shape`. Each 64-bit random number gives four of them: on a CPU three times as fast as
    `torch.rand`."""
    size = shape.numel()
    lowest, count = -(2**63), ((size + 3) // 4,)
    draws = torch.randint(lowest, -lowest - 1, count, dtype=torch.int64, device=device, generator=generator)
    return draws.view(torch.int16)[:size].view(shape)


def largest(values: Tensor, dim: int | None = None) -> Tensor:
    """Absmax, float32: along `dim`, which stays as a dimension of 1, or over all `values`. On a GPU one pass, over half
    precision directly; on a CPU that would take ten times as long."""
    if values.is_cuda:
        return torch.linalg.vector_norm(values, torch.inf, dim, keepdim=dim is not None, dtype=torch.float32)
    size = values.float().abs()
    return size.amax() if dim is None else size.amax(dim, keepdim=True)


def power_of_two(scale: Tensor) -> Tensor:
    """Round float32 up to a power of two (an exact one stays), by bit operations; infinities and NaN stay."""
    up = ((scale.contiguous().view(torch.int32) + 0x007FFFFF) & 0x7F800000).view(torch.float32)
    return torch.where(torch.isfinite(scale), up, scale)


def quantise(values: Tensor, dim: int, pow2: bool = False, noise: Tensor | None = None) -> QuantisedRows:
    """Quantise `values` [M, N] to symmetric int8, with one scale for all values along `dim`: the largest magnitude
    becomes 127, or with `pow2` at most 127, the scale then being a power of two (fixed point). Rounds to nearest, or
    with `noise` (int16 of the same shape) stochastically. A row that is not finite gets a scale that is not finite."""
    scale = (largest(values, dim) / LEVELS).clamp_min(TINY)
    if pow2:
        scale = power_of_two(scale)
    steps = values / scale
    if noise is None:
        steps.round_()
    else:  # the half (32768.5 instead of 32768) makes it unbiased, and keeps values that lie on the grid
        steps.add_(noise.float().add_(32768.5), alpha=2.0**-16).floor_()
    return QuantisedRows(steps.clamp_(-LEVELS, LEVELS).to(torch.int8), scale)


def to_bf16(values: Tensor, noise: Tensor | None = None) -> Tensor:
    """float32 to bf16, rounded to nearest, or with `noise` stochastically by the 16 bits that are cut off. Infinities
    and NaN stay, and the largest finite numbers do not overflow."""
    if noise is None:
        return values.to(torch.bfloat16)
    bits = values.contiguous().view(torch.int32)
    up = (bits + (noise.to(torch.int32) & 0xFFFF)) & -65536
    rounded = up.view(torch.float32)
    return torch.where(torch.isfinite(rounded) & torch.isfinite(values), rounded, values).to(torch.bfloat16)
