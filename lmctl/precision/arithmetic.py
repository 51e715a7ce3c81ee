"""Quantised arithmetic: number formats of the three matrix products of a linear layer.

    output           y  [N, O] = x [N, I] . w^T [I, O]      a scale per token, a scale per output channel
    input gradient   gx [N, I] = g [N, O] . w [O, I]        a scale per token, a scale per input channel
    weight gradient  gw [O, I] = g^T [O, N] . x [N, I]      a scale per output channel, a scale per input channel

The scales factor out of each sum, because no operand is scaled differently along the dimension that is summed over. So
x, w and g each take part twice: once with a scale per row, once with a scale per column.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lmctl.kernels.counter import next_key
from lmctl.kernels.plain.quantise import QuantisedRows, quantise
from lmctl.kernels.quantise import dequantise, quantise_both, quantise_rows
from lmctl.precision.int8_product import int8_product
from lmctl.precision.rounding import noise16


class Operand(NamedTuple):
    """A matrix [M, N], quantised for both of its products."""

    rows: QuantisedRows
    """With a scale per row [M, 1]."""
    columns: QuantisedRows | None
    """With a scale per column [1, N]; None if that product is not needed."""

    def t(self) -> Operand:
        """The transposed matrix; it must have both forms."""
        assert self.columns is not None
        return Operand(self.columns.t(), self.rows.t())


class Arithmetic(Protocol):
    """A low-precision number format: quantisation, and the matrix product of quantised operands."""

    def quantise(self, values: Tensor, both: bool) -> Operand:
        """Quantise weights or activations [M, N]; without `both` by row only."""
        ...

    def quantise_gradient(self, values: Tensor) -> Operand:
        """Quantise an output gradient [M, N] both ways."""
        ...

    def multiply(self, a: QuantisedRows, b: QuantisedRows, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Matrix product of [M, K] and [K, N], each with one scale per vector of K values, plus `bias` [N]: computed in
        float32, returned as `dtype` [M, N]."""
        ...


@dataclass(frozen=True)
class Int8Arithmetic:
    """int8 operands, exact int32 sums, float32 scales (or powers of two: fixed-point arithmetic). `stochastic`: output
    gradients are rounded stochastically, by noise that both of their products share. It comes from torch's global
    generator of the device, on a CPU by way of a key; a checkpoint of the run has the generator's state."""

    stochastic: bool
    pow2: bool

    def quantise(self, values: Tensor, both: bool) -> Operand:
        return Operand(*quantise_both(values, self.pow2)) if both else Operand(quantise_rows(values, self.pow2), None)

    def quantise_gradient(self, values: Tensor) -> Operand:
        if not self.stochastic:
            return Operand(*quantise_both(values, self.pow2))
        if values.device.type == "cpu" and not torch.compiler.is_compiling():
            return Operand(*quantise_both(values, self.pow2, next_key()))
        noise = noise16(values.shape, values.device)
        return Operand(quantise(values, 1, self.pow2, noise), quantise(values, 0, self.pow2, noise))

    def multiply(self, a: QuantisedRows, b: QuantisedRows, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        return dequantise(int8_product(a.values, b.values), a.scale, b.scale, bias, dtype)


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


def weight_gradient(
    arithmetic: Arithmetic, gradient: Operand, x: QuantisedRows, dtype: torch.dtype, transposed: bool = False
) -> Tensor:
    """Weight gradient [O, I], or [I, O] if `transposed`, from an output gradient [N, O] and inputs [N, I], both with a
    scale per column."""
    assert gradient.columns is not None
    a, b = (x, gradient.columns) if transposed else (gradient.columns, x)
    return arithmetic.multiply(a.t(), b, None, dtype)
