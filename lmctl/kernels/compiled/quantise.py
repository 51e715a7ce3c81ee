"""Scaling and rounding to int8, and back, compiled: see `lmctl.kernels.plain.quantise` for the rule.

Loops see row-major matrices of float32 or, as uint16, the bits of bfloat16. Inner ones run over slices from their
beginning, which is what LLVM makes vectors of.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

import numba
import numpy as np
import torch
from numba import types
from numba.extending import overload
from torch import Tensor

from lmctl.kernels.backend import in_threads
from lmctl.kernels.compiled.counter import bits
from lmctl.kernels.compiled.jit import kernel
from lmctl.kernels.counter import BLOCK, Key
from lmctl.kernels.plain.quantise import FINE, LEVELS, TINY, QuantisedRows

word, single, integer = np.uint32, np.float32, np.int32
SIGN, MANTISSA, EXPONENT, QUIET = word(0x7FFFFFFF), word(0x007FFFFF), word(0x7F800000), word(0x00400000)
S16, LOW, ONE, HALF = word(16), word(0xFFFF), word(1), word(0x7FFF)
INFINITE = EXPONENT
STEPS, SMALLEST, UNIT, PARTS = single(LEVELS), single(TINY), single(1.0), single(FINE)
MOST = single(LEVELS * FINE)
TO_INTEGER = single(1.5 * 2.0**23)
"""Added to a number below 2^22, it leaves the nearest integer (of two the even one) in the lowest bits of the sum."""
NO_BIAS = np.empty(0, np.float32)


def quantise_rows(values: Tensor, pow2: bool) -> QuantisedRows:
    """`lmctl.kernels.quantise.quantise_rows`."""
    out, scale = _outputs(values, 1)
    x, q, most = _array(values), out.numpy(), np.empty(len(values), word)
    in_threads(lambda start, end: _row_maxima(x, most, start, end), len(x), x.size)
    inverse = _inverses(most, pow2, scale)
    in_threads(lambda start, end: _round_rows(x, inverse, q, start, end), len(x), x.size)
    return QuantisedRows(out, scale)


def quantise_both(values: Tensor, pow2: bool, key: Key | None) -> tuple[QuantisedRows, QuantisedRows]:
    """`lmctl.kernels.quantise.quantise_both`."""
    (by_row, row_scale), (by_column, column_scale) = _outputs(values, 1), _outputs(values, 0)
    x, p, q = _array(values), by_row.numpy(), by_column.numpy()
    row_most, column_most = _both_maxima(x)
    rows, columns = _inverses(row_most, pow2, row_scale), _inverses(column_most, pow2, column_scale)

    if key is None:
        in_threads(lambda start, end: _round_both(x, rows, columns, p, q, start, end), len(x), x.size)
    else:
        fine, k0, k1 = (rows * PARTS, columns * PARTS), word(key.k0), word(key.k1)
        in_threads(lambda start, end: _round_both_at_random(x, *fine, k0, k1, p, q, start, end), len(x), x.size)
    return QuantisedRows(by_row, row_scale), QuantisedRows(by_column, column_scale)


def dequantise(sums: Tensor, rows: Tensor, columns: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """`lmctl.kernels.quantise.dequantise`."""
    x, a, b = sums.numpy(), _vector(rows), _vector(columns)
    added = NO_BIAS if bias is None else _vector(bias.float())
    if dtype == torch.float32:
        in_threads(lambda start, end: _dequantise(x, a, b, added, start, end), len(x), x.size)
        return sums.view(torch.float32)
    out = torch.empty_like(sums, dtype=dtype)
    y = _array(out)
    in_threads(lambda start, end: _dequantise_to_bf16(x, a, b, added, y, start, end), len(x), x.size)
    return out


def _outputs(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Memory for quantised values and their scales, one for all values along `dim`."""
    shape = list(values.shape)
    shape[dim] = 1
    return torch.empty(values.shape, dtype=torch.int8), torch.empty(shape)


def _array(values: Tensor) -> Any:
    """float32, or the bits of bfloat16 as uint16, in the same memory."""
    return values.view(torch.uint16).numpy() if values.dtype == torch.bfloat16 else values.numpy()


def _vector(values: Tensor) -> Any:
    return values.detach().reshape(-1).contiguous().numpy()


def _both_maxima(x: Any) -> tuple[Any, Any]:
    """The largest magnitudes of rows and columns, as bits."""
    rows, columns, lock = np.empty(len(x), word), np.zeros(x.shape[1], word), Lock()

    def work(start: int, end: int) -> None:
        part = np.zeros_like(columns)
        _maxima(x, rows, part, start, end)
        with lock:
            np.maximum(columns, part, out=columns)

    in_threads(work, len(x), x.size)
    return rows, columns


def _inverses(most: Any, pow2: bool, scale: Tensor) -> Any:
    """Fill `scale` from the bits of largest magnitudes, and return the inverses."""
    inverse = np.empty(len(most), single)
    _scales(most, pow2, scale.view(-1).numpy(), inverse)
    return inverse


def _either(value: Any) -> Any:
    raise NotImplementedError


@numba.njit(inline="always")
def bits_of(value):  # type: ignore[no-untyped-def]
    """The bits of a float32, as uint32."""
    return single(value).view(np.uint32)  # numba wants the types to be written out


@numba.njit(inline="always")
def float_of(value):  # type: ignore[no-untyped-def]
    """The float32 that has these bits."""
    return word(value).view(np.float32)


as_float: Any = _either
"""float32, or bfloat16 as bits, as float32."""
stored: Any = _either
"""A float32 as it is written into an array of float32, or into one of int32 that is read as float32 afterwards."""


@overload(as_float, inline="always")
def _as_float(value):  # type: ignore[no-untyped-def]
    if isinstance(value, types.Float):
        return lambda value: value
    return lambda value: float_of(word(word(value) << S16))


@overload(stored, inline="always")
def _stored(value, like):  # type: ignore[no-untyped-def]
    if isinstance(like, types.Float):
        return lambda value, like: value
    return lambda value, like: bits_of(value)


@kernel
def _row_maxima(x, rows, start, end):  # type: ignore[no-untyped-def]
    """The largest magnitude of each row from `start` to `end`, as bits of float32: their order is that of magnitudes,
    with infinity and then NaN on top."""
    for r in range(start, end):
        most = word(0)
        for c in range(x.shape[1]):
            most = max(most, bits_of(as_float(x[r, c])) & SIGN)
        rows[r] = most


@kernel
def _maxima(x, rows, columns, start, end):  # type: ignore[no-untyped-def]
    """`_row_maxima`, and those of the same part of each column, to which `columns` is raised."""
    for r in range(start, end):
        most = word(0)
        for c in range(x.shape[1]):
            size = bits_of(as_float(x[r, c])) & SIGN
            most = max(most, size)
            columns[c] = max(columns[c], size)
        rows[r] = most


@kernel
def _scales(most, pow2, scale, inverse):  # type: ignore[no-untyped-def]
    """Scales and their inverses, from the bits of the largest magnitudes."""
    for i in range(len(most)):
        one = single(float_of(most[i]) / STEPS)
        if one < SMALLEST:
            one = SMALLEST
        if pow2 and bits_of(one) < INFINITE:
            one = float_of(word((bits_of(one) + MANTISSA) & EXPONENT))
        scale[i] = one
        inverse[i] = single(UNIT / one)


@kernel
def _round_rows(x, inverse, out, start, end):  # type: ignore[no-untyped-def]
    """Round the rows from `start` to `end` to nearest, with one scale per row."""
    for r in range(start, end):
        factor = inverse[r]
        for c in range(x.shape[1]):
            out[r, c] = np.int8(bits_of(single(single(as_float(x[r, c]) * factor) + TO_INTEGER)))


@kernel
def _round_both(x, row_inverse, column_inverse, by_row, by_column, start, end):  # type: ignore[no-untyped-def]
    """Round the rows from `start` to `end` to nearest, with one scale per row and with one per column."""
    for r in range(start, end):
        factor = row_inverse[r]
        for c in range(x.shape[1]):
            value = as_float(x[r, c])
            by_row[r, c] = np.int8(bits_of(single(single(value * factor) + TO_INTEGER)))
            by_column[r, c] = np.int8(bits_of(single(single(value * column_inverse[c]) + TO_INTEGER)))


@numba.njit(inline="always")
def at_random(fine, noise):  # type: ignore[no-untyped-def]
    """Rounded stochastically, from parts of a step."""
    fine = fine if fine > -MOST else -MOST
    fine = fine if fine < MOST else MOST
    return np.int8((integer(np.rint(fine)) + integer(noise)) >> integer(16))


@numba.njit
def _fill_noise(block, k0, k1, noise):  # type: ignore[no-untyped-def]
    """The noise of one block of elements: see `lmctl.kernels.counter.halves`."""
    first = word(word(block) * word(BLOCK // 2))
    for i in range(BLOCK // 2):
        both = bits(word(first + word(i)), k0, k1)
        noise[i] = both & LOW
        noise[i + BLOCK // 2] = both >> S16


@numba.njit(inline="always")
def _round_part(x, factor, column_inverse, noise, by_row, by_column):  # type: ignore[no-untyped-def]
    for i in range(len(x)):
        value = as_float(x[i])
        by_row[i] = at_random(value * factor, noise[i])
        by_column[i] = at_random(value * column_inverse[i], noise[i])


@kernel
def _round_both_at_random(x, row_inverse, column_inverse, k0, k1, by_row, by_column, start, end):  # type: ignore[no-untyped-def]
    """`_round_both` with stochastic rounding, from inverses in parts of a step; both roundings of an element have the
    same noise."""
    width = x.shape[1]
    noise = np.empty(BLOCK, np.uint16)
    made, at = -1, start * width
    while at < end * width:
        block, r = at // BLOCK, at // width
        if block != made:
            _fill_noise(block, k0, k1, noise)
            made = block
        c, n = at - r * width, at - block * BLOCK
        count = min(width - c, BLOCK - n)
        _round_part(
            x[r, c : c + count],
            row_inverse[r],
            column_inverse[c : c + count],
            noise[n : n + count],
            by_row[r, c : c + count],
            by_column[r, c : c + count],
        )
        at += count


@kernel
def _dequantise(sums, rows, columns, bias, start, end):  # type: ignore[no-untyped-def]
    """int32 or float32 rows from `start` to `end` times two scales, plus a bias if there is one, as float32 in the same
    place."""
    for r in range(start, end):
        scale = rows[r]
        if len(bias) > 0:
            for c in range(sums.shape[1]):
                value = single(single(single(single(sums[r, c]) * scale) * columns[c]) + bias[c])
                sums[r, c] = stored(value, sums[r, c])
        else:
            for c in range(sums.shape[1]):
                sums[r, c] = stored(single(single(single(sums[r, c]) * scale) * columns[c]), sums[r, c])


@kernel
def _dequantise_to_bf16(sums, rows, columns, bias, out, start, end):  # type: ignore[no-untyped-def]
    """`_dequantise`, rounded to the bits of bfloat16 in `out`."""
    for r in range(start, end):
        scale = rows[r]
        for c in range(sums.shape[1]):
            value = single(single(single(sums[r, c]) * scale) * columns[c])
            if len(bias) > 0:
                value = single(value + bias[c])
            exact = bits_of(value)
            rounded = word(exact + HALF + ((exact >> S16) & ONE))
            out[r, c] = (rounded if (exact & SIGN) <= INFINITE else exact | QUIET) >> S16
