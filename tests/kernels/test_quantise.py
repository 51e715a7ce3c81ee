"""Quantisation kernels: the rule against int64 and float64 arithmetic, and compiled against plain bit by bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmctl.kernels import backend
from lmctl.kernels.counter import BLOCK, Key
from lmctl.kernels.plain import quantise as plain
from lmctl.kernels.quantise import dequantise, quantise_both, quantise_rows

KEY = Key(0xFFFFFF00, 0x9E3779B9)
"""Its positions wrap around."""


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def matrix(rows: int, columns: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rows and columns of very different size, one of each zero."""
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows + columns))
    x = x * torch.logspace(-3, 3, rows)[:, None] * torch.logspace(2, -2, columns)
    x[rows // 2], x[:, columns // 2] = 0, 0
    return x.to(dtype)


def all_of(x: Tensor, pow2: bool) -> list[Tensor]:
    """Everything that the kernels make of a matrix."""
    quantised = [quantise_rows(x, pow2), *quantise_both(x, pow2), *quantise_both(x, pow2, KEY)]
    _, _, _, by_row, by_column = quantised
    sums = by_row.values.int() * by_column.values.int() * 1000
    bias = torch.linspace(-1, 1, x.shape[1])
    back = [
        dequantise(sums.clone(), by_row.scale, by_column.scale, added, dtype)
        for added in (None, bias)
        for dtype in (torch.float32, torch.bfloat16)
    ]
    return [*(tensor for pair in quantised for tensor in pair), *back]


@pytest.mark.parametrize("shape", [(1, 1), (33, 700), (3, 2 * BLOCK + 1), (200, 1024)], ids=str)
def test_compiled_kernels_make_the_same_bits_with_any_number_of_threads(shape, threads):
    for dtype in (torch.float32, torch.bfloat16):
        for pow2 in (False, True):
            x, found = matrix(*shape, dtype), []
            for compiled, number in ((False, 1), (True, 1), (True, 3)):
                backend.use_compiled(compiled)
                torch.set_num_threads(number)
                found.append(all_of(x, pow2))
            backend.use_compiled(True)
            for one, *others in zip(*found, strict=True):
                assert all(one.dtype == other.dtype and torch.equal(one, other) for other in others)


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=5), st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_values_are_within_half_a_step_of_their_own_scale(rows, pow2):
    x = torch.tensor(rows)
    for number, (values, scale) in enumerate([*quantise_both(x, pow2), *quantise_both(x, pow2, KEY)]):
        most = 0.5 if number < 2 else 1.0
        assert ((values * scale.double() - x.double()).abs() <= scale.double() * (most + 2e-5)).all()
        assert values.abs().max() <= 127


@pytest.mark.parametrize("value", [0.25, -0.6, 126.9, -100.001])
def test_stochastic_rounding_is_right_on_average(value):
    """Row by row and column by column, over 20,000 elements."""
    x = torch.full((200, 101), value)
    x[0], x[:, 0] = 127.0, 127.0  # sets all scales to 1
    low = math.floor(value)
    error = math.sqrt((value - low) * (low + 1 - value) / 20_000)
    by_row, by_column = quantise_both(x, key=KEY)
    assert torch.equal(by_row.values, by_column.values), "both roundings have the same noise"
    inner = by_row.values[1:, 1:].double()
    assert set(inner.unique().tolist()) == {low, low + 1}
    assert abs(inner.mean().item() - value) < 5 * error
    again, other = quantise_both(x, key=KEY)[0], quantise_both(x, key=Key(1, 2))[0]
    assert torch.equal(again.values, by_row.values)
    assert not torch.equal(other.values, by_row.values)


def test_integers_and_zeros_stay():
    grid = torch.arange(-127.0, 128.0).expand(3, 255).contiguous()
    assert torch.equal(quantise_both(grid, key=KEY)[0].values.float(), grid)
    nothing = quantise_rows(torch.zeros(2, 5))
    assert not nothing.values.any()
    assert (nothing.scale == plain.TINY).all()


def test_what_is_not_finite_spoils_its_own_vectors_only():
    for value in (math.inf, -math.inf, math.nan):
        x = torch.randn(4, 6)
        x[1, 2] = value
        for key in (None, KEY):
            rows, columns = quantise_both(x, key=key)
            assert rows.scale.isfinite().flatten().tolist() == [True, False, True, True]
            assert columns.scale.isfinite().flatten().tolist() == [True, True, False, True, True, True]


def test_a_transposed_matrix_is_quantised_where_it_lies():
    x = matrix(5, 7)
    rows, columns = quantise_both(x.t())
    assert torch.equal(rows.values, quantise_both(x)[1].values.t())
    assert torch.equal(columns.scale, quantise_both(x)[0].scale.t())
    assert rows.values.t().is_contiguous()


def test_sums_come_back_as_the_product_of_three_numbers():
    sums = torch.randint(-(2**31), 2**31 - 1, (9, 5), dtype=torch.int32)
    rows, columns, bias = torch.rand(9, 1), torch.rand(1, 5), torch.randn(5)
    exact = sums.numpy().astype(np.int64) * rows.double().numpy() * columns.double().numpy() + bias.double().numpy()
    size = torch.from_numpy(np.abs(exact)) + 3
    exact = torch.from_numpy(exact)
    found = dequantise(sums.clone(), rows, columns, bias, torch.float32)
    assert ((found.double() - exact).abs() <= size * 4 * 2.0**-24).all()
    half = dequantise(sums.clone(), rows, columns, bias, torch.bfloat16)
    assert torch.equal(half, found.to(torch.bfloat16))
    longer = dequantise(sums.long(), rows, columns, bias, torch.float32)
    assert torch.equal(longer, found)
