"""fp8 operands for the three products of a linear layer (Micikevicius et al. 2022, "FP8 formats for deep learning").

Weights and activations are E4M3 (largest 448), output gradients E5M2 (largest 57344), each scaled by what it has just
now ("dynamic"), per token and channel or as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lmctl.precision.counting import count
from lmctl.precision.rounding import TINY, Rows, largest


@dataclass(frozen=True)
class Fp8:
    """fp8 operands, fp32 sums. `rowwise`: a scale per token and channel; `emulate`: operands are rounded to fp8 and
    multiplied in fp32."""

    rowwise: bool
    emulate: bool

    def noise(self, gradient: Tensor) -> Tensor | None:
        return None

    def quantise(self, values: Tensor, dim: int) -> Rows:
        return self._to(torch.float8_e4m3fn, values, dim)

    def quantise_gradient(self, values: Tensor, dim: int, noise: Tensor | None) -> Rows:
        return self._to(torch.float8_e5m2, values, dim)

    def _to(self, dtype: torch.dtype, values: Tensor, dim: int) -> Rows:
        """`values` [M, N] in `dtype`, the largest magnitude along `dim` (of all, unless `rowwise`) being the largest
        there is."""
        size = largest(values, dim) if self.rowwise else largest(values).view(1, 1)
        scale = (size / torch.finfo(dtype).max).clamp_min(TINY)
        return Rows(
            (values / scale).to(dtype), scale
        )  # at most an ulp of float32 above the largest, which it rounds to

    def multiply(self, a: Rows, b: Rows) -> Tensor:
        count("fp8")
        if self.emulate:
            return torch.mm(a.values.float(), b.values.float()).mul_(a.scale).mul_(b.scale)
        return scaled_product(a, b, self.rowwise)


def scaled_product(a: Rows, b: Rows, rowwise: bool) -> Tensor:
    """[M, K] times [K, N] by torch's fp8 kernel, which wants K and N to be multiples of 16 (zeros change nothing), `a`
    row by row in memory and `b` column by column. With scales per row it gives bf16, else fp32; returns float32."""
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
    """fp8 as bytes, which can be padded."""
    return x.contiguous().view(torch.uint8)
