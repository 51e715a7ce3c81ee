"""Linear layers with kept half-precision weights: torch's autocast is the reference, on CPUs with and without units."""

from __future__ import annotations

import re

import pytest
import torch
from compared import relative
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.pytorch_utils import Conv1D

from lmctl.precision import emulation
from lmctl.precision.autocast import half_products
from lmctl.precision.bf16 import Bf16
from lmctl.precision.fp16 import Fp16
from lmctl.precision.half_linear import cast_after_steps, keep_half_copies

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["linear", "without bias", "conv1d"])
def test_output_and_gradients_are_those_of_autocast(kind, dtype):
    torch.manual_seed(0)
    layer = Conv1D(24, 40) if kind == "conv1d" else nn.Linear(40, 24, bias=kind == "linear")
    x, upstream = torch.randn(3, 50, 40, requires_grad=True), torch.randn(3, 50, 24)
    leaves = [x, *layer.parameters()]

    def run(enabled=True):
        with half_products(dtype, CPU) if enabled else torch.autocast("cpu", enabled=False):
            y = layer(x)
        return [y, *torch.autograd.grad(y, leaves, upstream.to(y.dtype))]

    exact, theirs = run(enabled=False), run()
    keep_half_copies([layer])
    for mine, other, full in zip(run(), theirs, exact, strict=True):
        assert mine.dtype == other.dtype
        assert relative(mine, full) < 1.1 * relative(other, full)
        assert relative(mine, full) > 1e-5  # it did round
    for mine, full in zip(run(enabled=False), exact, strict=True):  # outside of autocast as before
        assert torch.equal(mine, full)


@pytest.mark.parametrize(
    ("precision", "units", "said"),
    [
        (Bf16(), [torch.bfloat16], None),
        (Fp16(), [torch.bfloat16], "fp16 does not pay on this CPU, .* nearest: precision=bf16"),
        (Fp16(), [torch.bfloat16, torch.float16], None),
        (Bf16(), [], "bf16 does not pay on this CPU, .* nearest: precision=fp32"),
        (Fp16(), [], "fp16 does not pay on this CPU, .* nearest: precision=fp32"),
    ],
)
def test_it_is_said_where_half_precision_gains_nothing(monkeypatch, precision, units, said):
    monkeypatch.setattr(emulation, "_has_units", lambda dtype: dtype in units)
    lines = precision.convert(nn.Sequential(nn.Linear(2, 2)), CPU)
    assert len(lines) == (said is not None)
    assert said is None or re.fullmatch(said, lines[0])


def test_what_norms_return_is_rounded_where_products_are():
    norms = [nn.LayerNorm(8), LlamaRMSNorm(8)]
    network, x = nn.ModuleList([*norms, nn.Linear(8, 8)]), torch.randn(4, 8)
    before = [norm(x) for norm in norms]
    Bf16().convert(network, CPU)
    for norm, full in zip(norms, before, strict=True):
        assert torch.equal(norm(x), full)
        with Bf16().products(CPU):
            assert torch.equal(norm(x), full.bfloat16())


def _by_the_fused_optimiser(layer):
    layer.weight.grad = torch.ones_like(layer.weight)
    optimizer = torch.optim.AdamW([layer.weight], lr=0.1, fused=True)
    cast_after_steps(optimizer, nn.ModuleList([layer]))
    optimizer.step()


def _in_place(layer):
    with torch.no_grad():
        layer.weight.add_(1)


def _by_loading(layer):
    layer.load_state_dict({"weight": layer.weight + 1})


def _by_other_storage(layer):
    layer.weight.data = layer.weight.data + 1


@pytest.mark.parametrize("change", [_by_the_fused_optimiser, _in_place, _by_loading, _by_other_storage])
def test_a_weight_that_changed_is_cast_again(change):
    layer, x = nn.Linear(8, 8, bias=False), torch.eye(8)
    keep_half_copies([layer])
    with half_products(torch.bfloat16, CPU):
        before = layer(x)
        change(layer)
        after = layer(x)
    assert torch.equal(after, layer.weight.t().bfloat16())
    assert not torch.equal(after, before)


def test_a_weight_is_cast_once_for_all_passes_between_two_updates():
    layer, x = nn.Linear(8, 8), torch.randn(4, 8)
    keep_half_copies([layer])
    with half_products(torch.bfloat16, CPU):
        layer(x)
    copy = layer.half_weight.values
    assert copy is not None
    version = copy._version
    for _ in range(3):
        with half_products(torch.bfloat16, CPU):
            layer(x).sum().backward()
    assert layer.half_weight.values is copy
    assert copy._version == version
