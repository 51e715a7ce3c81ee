"""Quantisation of matrices to int8 with a scale per row, per column, or both from one reading; and back to float.

The rule is stated in `lmctl.kernels.plain.quantise`. CPU tensors are quantised by compiled kernels where numba is
installed, with the same bits; all others in plain torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from lmctl.kernels import backend
from lmctl.kernels.counter import Key
from lmctl.kernels.kernel import Kernel
from lmctl.kernels.plain import quantise as plain
from lmctl.kernels.plain.quantise import QuantisedRows

Rows: TypeAlias = Callable[[Tensor, bool], QuantisedRows]
Both: TypeAlias = Callable[[Tensor, bool, Key | None], tuple[QuantisedRows, QuantisedRows]]
Dequantise: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor | None, torch.dtype], Tensor]

FLOATS = (torch.float32, torch.bfloat16)
"""Dtypes of the compiled kernels."""


def quantise_rows(values: Tensor, pow2: bool = False) -> QuantisedRows:
    """Quantise `values` [M, N], fp32, bf16 or fp16, with a scale per row [M, 1], rounded to nearest."""
    if values.dtype not in FLOATS or not _takes(values):
        return plain.quantise_rows(values, pow2)
    if not backend.has_data(values):
        return _shaped(values, 1)
    return ROWS.function()(values.detach().contiguous(), pow2)


def quantise_both(values: Tensor, pow2: bool = False, key: Key | None = None) -> tuple[QuantisedRows, QuantisedRows]:
    """Quantise `values` [M, N], fp32, bf16 or fp16, twice: with a scale per row [M, 1], and with one per column [1, N].
    Rounded to nearest, or stochastically by the noise of `key` at an element's position (row by row), the same for
    both."""
    if key is None and not values.is_contiguous() and values.t().is_contiguous():
        columns, rows = quantise_both(values.t(), pow2)
        return rows.t(), columns.t()
    if values.dtype not in FLOATS or not _takes(values):
        return plain.quantise_both(values, pow2, key)
    if not backend.has_data(values):
        return _shaped(values, 1), _shaped(values, 0)
    return BOTH.function()(values.detach().contiguous(), pow2, key)


def dequantise(sums: Tensor, rows: Tensor, columns: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Integers [M, N] times the scales of rows [M, 1] and columns [1, N], plus `bias` [N], in float32, as `dtype`.
    `sums` is used up: a float32 result may take its memory. Integers that are float32 already give the same."""
    if sums.dtype not in (torch.int32, torch.float32) or dtype not in FLOATS or not _takes(sums):
        return plain.dequantise(sums, rows, columns, bias, dtype)
    if not backend.has_data(sums):
        return sums.view(torch.float32) if dtype == torch.float32 else torch.empty_like(sums, dtype=dtype)
    return DEQUANTISE.function()(sums.contiguous(), rows, columns, bias, dtype)


def _takes(matrix: Tensor) -> bool:
    return matrix.numel() > 0 and backend.takes(matrix)


def _shaped(values: Tensor, dim: int) -> QuantisedRows:
    """What `lmctl plan` needs of a quantised tensor, which is its memory."""
    scale = values.new_empty([1 if at == dim else size for at, size in enumerate(values.shape)], dtype=torch.float32)
    return QuantisedRows(torch.empty_like(values, dtype=torch.int8), scale)


def _compiled_rows() -> Rows:
    from lmctl.kernels.compiled.quantise import quantise_rows

    return quantise_rows


def _compiled_both() -> Both:
    from lmctl.kernels.compiled.quantise import quantise_both

    return quantise_both


def _compiled_dequantise() -> Dequantise:
    from lmctl.kernels.compiled.quantise import dequantise

    return dequantise


def _matrices() -> list[Tensor]:
    """Rows of very different sizes, in the dtypes of the compiled kernels."""
    values = torch.linspace(-3, 3, 37 * 29).view(37, 29) * torch.logspace(-6, 6, 37)[:, None]
    return [values.to(dtype) for dtype in FLOATS]


def _try_rows(function: Rows) -> list[Tensor]:
    return [tensor for values in _matrices() for pow2 in (False, True) for tensor in function(values, pow2)]


def _try_both(function: Both) -> list[Tensor]:
    keys = (None, Key(0xFFFFFF00, 0x9E3779B9))
    return [tensor for values in _matrices() for key in keys for one in function(values, False, key) for tensor in one]


def _try_dequantise(function: Dequantise) -> list[Tensor]:
    integers, scales = torch.arange(-500, 573, dtype=torch.int32).view(37, 29), torch.linspace(1e-6, 7, 37 + 29)
    rows, columns = scales[:37, None], scales[None, 37:]
    return [
        function(sums.clone(), rows, columns, bias, dtype)
        for sums in (integers, integers.float())
        for dtype in FLOATS
        for bias in (None, columns[0])
    ]


ROWS: Kernel[Rows] = Kernel("quantise rows", plain.quantise_rows, _compiled_rows, _try_rows)
BOTH: Kernel[Both] = Kernel("quantise rows and columns", plain.quantise_both, _compiled_both, _try_both)
DEQUANTISE: Kernel[Dequantise] = Kernel("dequantise", plain.dequantise, _compiled_dequantise, _try_dequantise)
