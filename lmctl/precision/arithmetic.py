"""Quantised arithmetic: number formats of the three matrix products of a linear layer.

    output           y  [N, O] = x [N, I] . w^T [I, O]      a scale per token, a scale per output channel
    input gradient   gx [N, I] = g [N, O] . w [O, I]        a scale per token, a scale per input channel
    weight gradient  gw [O, I] = g^T [O, N] . x [N, I]      a scale per output channel, a scale per input channel

The scales factor out of each sum, because no operand is scaled differently along the dimension that is summed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lmctl.precision.int8_product import int8_product
from lmctl.precision.rounding import QuantisedRows, noise16, quantise


class Arithmetic(Protocol):
    """A low-precision number format: quantisation, and the matrix product of quantised operands."""

    def noise(self, gradient: Tensor) -> Tensor | None:
        """Noise for stochastic rounding of an output gradient, shared by its two products; None: round to nearest."""
        ...

    def quantise(self, values: Tensor, dim: int) -> QuantisedRows:
        """Quantise weights or activations [M, N], one scale for all values along `dim`."""
        ...

    def quantise_gradient(self, values: Tensor, dim: int, noise: Tensor | None) -> QuantisedRows:
        """Quantise an output gradient [M, N], one scale for all values along `dim`."""
        ...

    def multiply(self, a: QuantisedRows, b: QuantisedRows) -> Tensor:
        """Matrix product of [M, K] and [K, N], each with one scale per vector of K values: float32 [M, N]."""
        ...


@dataclass(frozen=True)
class Int8Arithmetic:
    """int8 operands, exact int32 sums, float32 scales (or powers of two: fixed-point arithmetic)."""

    stochastic: bool
    pow2: bool

    def noise(self, gradient: Tensor) -> Tensor | None:
        return noise16(gradient.shape, gradient.device) if self.stochastic else None

    def quantise(self, values: Tensor, dim: int) -> QuantisedRows:
        return quantise(values, dim, self.pow2)

    def quantise_gradient(self, values: Tensor, dim: int, noise: Tensor | None) -> QuantisedRows:
        return quantise(values, dim, self.pow2, noise)

    def multiply(self, a: QuantisedRows, b: QuantisedRows) -> Tensor:
        return int8_product(a.values, b.values).float().mul_(a.scale).mul_(b.scale)


@contextmanager
def without_autocast(device: torch.device) -> Iterator[None]:
    """Context in which products run exactly as written: no autocast, no emulation of half precision."""
    with torch.autocast(device.type, enabled=False), torch._C.DisableTorchFunction():
        yield


def output_dtype(x: Tensor) -> torch.dtype:
    """The dtype of a product of `x`, with or without autocast."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def as_matrix(x: Tensor) -> Tensor:
    """[..., C] as [N, C]."""
    return x.reshape(-1, x.shape[-1])


def linear_forward(x: Tensor, weight: QuantisedRows, arithmetic: Arithmetic) -> Tensor:
    """Output product [..., O] of x [..., I] and a quantised weight [O, I] with one scale per output channel."""
    dtype = output_dtype(x)
    with without_autocast(x.device):
        y = arithmetic.multiply(arithmetic.quantise(as_matrix(x), 1), weight.t())
    return y.view(*x.shape[:-1], y.shape[-1]).to(dtype)


def weight_gradient(arithmetic: Arithmetic, gradient: Tensor, x: Tensor, noise: Tensor | None) -> Tensor:
    """Weight gradient, float32 [O, I], from an output gradient [N, O] and inputs [N, I]."""
    g = arithmetic.quantise_gradient(gradient, 0, noise)
    return arithmetic.multiply(g.t(), arithmetic.quantise(x, 0))
