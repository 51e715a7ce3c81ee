"""fp8: formats, scales, and torch's own kernel against the emulation."""

from __future__ import annotations

import math

import pytest
import torch
from compared import relative
from torch import nn

from lmctl.precision.counting import counting
from lmctl.precision.fp8 import Fp8 as Option
from lmctl.precision.fp8_arithmetic import Fp8Arithmetic, scaled_product
from lmctl.precision.linear import low_precision_products


@pytest.mark.parametrize("rowwise", [False, True], ids=["tensor", "row"])
def test_values_fill_the_format_and_are_near(rowwise):
    x = torch.randn(64, 48) * torch.logspace(-3, 3, 64)[:, None]
    low = Fp8Arithmetic(rowwise, True)
    for quantised, most, error in (
        (low.quantise(x, False).rows, 448.0, 2**-4),
        (low.quantise_gradient(x).rows, 57344.0, 2**-3),
    ):
        values = quantised.values.float()
        assert quantised.scale.shape == ((64, 1) if rowwise else (1, 1))
        assert float(values.abs().max()) == most
        if rowwise:
            assert (values.abs().amax(1) == most).all()
        back = values * quantised.scale
        normal = values.abs() > 2**-6
        assert ((back - x).abs()[normal] <= x.abs()[normal] * error * 1.001).all()


@pytest.mark.parametrize("rowwise", [False, True], ids=["tensor", "row"])
@pytest.mark.parametrize("shape", [(5, 16, 16), (33, 40, 24), (7, 3, 1)], ids=str)
def test_torchs_kernel_gives_what_the_emulation_gives(rowwise, shape):
    """On a CPU, where torch has a reference of the kernel; its padding and layout are those a GPU gets."""
    m, k, n = shape
    torch.manual_seed(0)
    low = Fp8Arithmetic(rowwise, True)
    for a, b in (
        (low.quantise(torch.randn(m, k), False).rows, low.quantise(torch.randn(n, k), False).rows.t()),
        (low.quantise_gradient(torch.randn(k, m)).columns.t(), low.quantise(torch.randn(k, n), True).columns),
    ):
        emulated = low.multiply(a, b, None, torch.float32)
        native = scaled_product(a, b, rowwise)
        assert native.shape == (m, n)
        assert native.dtype == torch.float32
        assert relative(native, emulated) < (2**-8 if rowwise else 1e-5)


@pytest.mark.parametrize("rowwise", [False, True], ids=["tensor", "row"])
def test_all_three_products_are_near_the_float_ones(rowwise):
    torch.manual_seed(0)
    layer = nn.Linear(64, 48)
    x, upstream = torch.randn(4, 16, 64, requires_grad=True), torch.randn(4, 16, 48)
    exact = [layer(x), *torch.autograd.grad(layer(x), [x, layer.weight], upstream)]
    low_precision_products(layer, Fp8Arithmetic(rowwise, True))
    with counting() as products:
        ours = [layer(x), *torch.autograd.grad(layer(x), [x, layer.weight], upstream)]
    assert products["fp8"] == 4
    for a, b, bound in zip(ours, exact, (0.05, 0.1, 0.1), strict=True):
        assert 0.01 < relative(a, b) < bound


def test_what_is_not_finite_comes_out_not_finite():
    layer = nn.Linear(8, 8)
    low_precision_products(layer, Fp8Arithmetic(True, True))
    for value in (math.inf, math.nan):
        x = torch.randn(4, 8)
        x[1, 2] = value
        assert layer(x).isfinite().all(dim=1).tolist() == [True, False, True, True]


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="scale must be tensor or row"):
        Option(scale="channel")
