"""Scaling and rounding to int8, and back, in plain torch, on any device: the specification of `lmctl.kernels.quantise`.

Symmetric int8 with one scale per vector (row or column): the largest magnitude becomes 127, or with `pow2` at most 127,
the scale then being a power of two (fixed point). A value is multiplied by the inverse of its scale and rounded to
nearest, or stochastically: up with a probability equal to the fraction that is cut off (Gupta et al. 2015, "Deep
learning with limited numerical precision", section 3). The fraction has 16 bits, so that 16 bits of noise are exactly
unbiased and integers stay. A vector that is not finite gets a scale that is not finite; its values mean nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lmctl.kernels.counter import Key, halves

LEVELS = 127
"""Symmetric int8: -128 is not used."""
TINY = 1e-30
"""Smallest scale: for vectors of zeros, so that its inverse is finite."""
FINE = 65536
"""Parts of a step that stochastic rounding tells apart."""


class QuantisedRows(NamedTuple):
    """Quantised values [M, N] and their float32 scales, [M, 1] or [1, N] (one per row or column); dequantised: their
    product."""

    values: Tensor
    scale: Tensor

    def t(self) -> QuantisedRows:
        return QuantisedRows(self.values.t(), self.scale.t())


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
    """Quantise `values` [M, N] to int8, with one scale for all values along `dim`. Rounds to nearest, or stochastically
    with `noise`: integers of the same shape, of which the lowest 16 bits are uniform."""
    scale = (largest(values, dim) / LEVELS).clamp_min(TINY)
    if pow2:
        scale = power_of_two(scale)
    inverse = scale.reciprocal()
    if noise is None:
        return QuantisedRows((values * inverse).round_().clamp_(-LEVELS, LEVELS).to(torch.int8), scale)
    fine = (values * (inverse * FINE)).clamp_(-LEVELS * FINE, LEVELS * FINE).round_().to(torch.int32)
    return QuantisedRows((fine.add_(noise.to(torch.int32) & 0xFFFF) >> 16).to(torch.int8), scale)


def quantise_rows(values: Tensor, pow2: bool) -> QuantisedRows:
    """`lmctl.kernels.quantise.quantise_rows`."""
    return quantise(values, 1, pow2)


def quantise_both(values: Tensor, pow2: bool, key: Key | None) -> tuple[QuantisedRows, QuantisedRows]:
    """`lmctl.kernels.quantise.quantise_both`."""
    noise = None if key is None else halves(values.numel(), key).view(values.shape).to(values.device)
    return quantise(values, 1, pow2, noise), quantise(values, 0, pow2, noise)


def dequantise(sums: Tensor, rows: Tensor, columns: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Integers [M, N] times the scales of rows [M, 1] and columns [1, N], plus `bias` [N], in float32, as `dtype`."""
    values = sums.float().mul_(rows).mul_(columns)
    return (values if bias is None else values.add_(bias)).to(dtype)
