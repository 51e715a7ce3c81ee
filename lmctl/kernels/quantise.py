"""Quantisation of matrices to int8 with a scale per row, per column, or both from one reading; and back to float.

The rule is stated in `lmctl.kernels.plain.quantise`. CPU tensors are quantised by compiled kernels where numba is
installed, with the same bits; all others in plain torch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from lmctl.kernels import backend
from lmctl.kernels.counter import Key
from lmctl.kernels.plain import quantise as plain
from lmctl.kernels.plain.quantise import QuantisedRows

FLOATS = (torch.float32, torch.bfloat16)
"""Dtypes of the compiled kernels."""


def quantise_rows(values: Tensor, pow2: bool = False) -> QuantisedRows:
    """Quantise `values` [M, N], fp32, bf16 or fp16, with a scale per row [M, 1], rounded to nearest."""
    if values.dtype not in FLOATS or not _is_compiled(values):
        return plain.quantise_rows(values, pow2)
    if isinstance(values, FakeTensor):
        return _shaped(values, 1)
    from lmctl.kernels.compiled import quantise as compiled

    return compiled.quantise_rows(values.detach().contiguous(), pow2)


def quantise_both(values: Tensor, pow2: bool = False, key: Key | None = None) -> tuple[QuantisedRows, QuantisedRows]:
    """Quantise `values` [M, N], fp32, bf16 or fp16, twice: with a scale per row [M, 1], and with one per column [1, N].
    Rounded to nearest, or stochastically by the noise of `key` at an element's position (row by row), the same for
    both."""
    if key is None and not values.is_contiguous() and values.t().is_contiguous():
        columns, rows = quantise_both(values.t(), pow2)
        return rows.t(), columns.t()
    if values.dtype not in FLOATS or not _is_compiled(values):
        return plain.quantise_both(values, pow2, key)
    if isinstance(values, FakeTensor):
        return _shaped(values, 1), _shaped(values, 0)
    from lmctl.kernels.compiled import quantise as compiled

    return compiled.quantise_both(values.detach().contiguous(), pow2, key)


def dequantise(sums: Tensor, rows: Tensor, columns: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Integers [M, N] times the scales of rows [M, 1] and columns [1, N], plus `bias` [N], in float32, as `dtype`.
    `sums` is used up: a float32 result may take its memory."""
    if sums.dtype != torch.int32 or dtype not in FLOATS or not _is_compiled(sums):
        return plain.dequantise(sums, rows, columns, bias, dtype)
    if isinstance(sums, FakeTensor):
        return sums.view(torch.float32) if dtype == torch.float32 else torch.empty_like(sums, dtype=dtype)
    from lmctl.kernels.compiled import quantise as compiled

    return compiled.dequantise(sums.contiguous(), rows, columns, bias, dtype)


def _is_compiled(matrix: Tensor) -> bool:
    usual = matrix.device.type == "cpu" and matrix.numel() > 0
    return usual and backend.compiled() and not torch.compiler.is_compiling()


def _shaped(values: Tensor, dim: int) -> QuantisedRows:
    """What `lmctl plan` needs of a quantised tensor, which is its memory."""
    scale = values.new_empty([1 if at == dim else size for at, size in enumerate(values.shape)], dtype=torch.float32)
    return QuantisedRows(torch.empty_like(values, dtype=torch.int8), scale)
