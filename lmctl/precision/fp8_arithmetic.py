"""fp8 quantisation for the three products of a linear layer (Micikevicius et al. 2022, "FP8 formats for deep
learning").

Weights and activations are E4M3 (maximum 448), output gradients E5M2 (maximum 57344). Scales are dynamic, computed from
the current tensor: per token and channel, or per tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lmctl.kernels.plain.quantise import TINY, QuantisedRows, largest
from lmctl.precision.arithmetic import Operand
from lmctl.precision.counting import count


@dataclass(frozen=True)
class Fp8Arithmetic:
    """fp8 operands, fp32 sums. `rowwise`: one scale per token and channel; `emulate`: operands are rounded to fp8 and
    multiplied in fp32."""

    rowwise: bool
    emulate: bool

    def quantise(self, values: Tensor, both: bool) -> Operand:
        rows = self._to(torch.float8_e4m3fn, values, 1)
        return Operand(rows, self._columns(rows, values) if both else None)

    def quantise_gradient(self, values: Tensor) -> Operand:
        rows = self._to(torch.float8_e5m2, values, 1)
        return Operand(rows, self._columns(rows, values))

    def _columns(self, rows: QuantisedRows, values: Tensor) -> QuantisedRows:
        return self._to(rows.values.dtype, values, 0) if self.rowwise else rows

    def _to(self, dtype: torch.dtype, values: Tensor, dim: int) -> QuantisedRows:
        """Quantise `values` [M, N] to `dtype`: the largest magnitude along `dim` (of the whole tensor, unless
        `rowwise`) becomes the format's maximum."""
        size = largest(values, dim) if self.rowwise else largest(values).view(1, 1)
        scale = (size / torch.finfo(dtype).max).clamp_min(TINY)
        return QuantisedRows(
            (values / scale).to(dtype), scale
        )  # at most one ulp of float32 above the maximum, which is rounded to the maximum

    def multiply(self, a: QuantisedRows, b: QuantisedRows, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        count("fp8")
        if self.emulate:
            y = torch.mm(a.values.float(), b.values.float()).mul_(a.scale).mul_(b.scale)
        else:
            y = scaled_product(a, b, self.rowwise)
        return (y if bias is None else y.add_(bias)).to(dtype)


def scaled_product(a: QuantisedRows, b: QuantisedRows, rowwise: bool) -> Tensor:
    """Product of [M, K] and [K, N] by torch's fp8 kernel, which needs K and N as multiples of 16 (padded with zeros),
    `a` row-major and `b` column-major. With scales per row the kernel returns bf16, else fp32; the result is
    float32."""
    k, n = b.values.shape
    inner, columns = -k % 16, -n % 16
    left, right = (_bytes(x) for x in (a.values, b.values.t()))
    if inner or columns:
        left, right = F.pad(left, (0, inner)), F.pad(right, (0, inner, 0, columns))
    left, right = left.view(a.values.dtype), right.view(b.values.dtype)
    if rowwise:
        rows, heads = a.scale.flatten()[:, None], F.pad(b.scale.flatten(), (0, columns), value=1.0)[None]
    else:
        rows, heads = a.scale.view(()), b.scale.view(())
    kind = torch.bfloat16 if rowwise else torch.float32
    product = torch._scaled_mm(left, right.t(), scale_a=rows, scale_b=heads, out_dtype=kind)
    return product[:, :n].float()


def _bytes(x: Tensor) -> Tensor:
    """fp8 as uint8, which can be padded."""
    return x.contiguous().view(torch.uint8)
