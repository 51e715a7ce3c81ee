"""Weights that are stored in int8 or bf16: nothing float remains, any optimiser steps on them, and all ranks alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from compared import relative
from safetensors.torch import load_file, save_file
from small import plan
from torch import nn
from transformers.pytorch_utils import Conv1D

from lmctl.core.errors import ConfigError
from lmctl.core.model_copies import restored_copy
from lmctl.optim.adamw import AdamW
from lmctl.optim.sgd import Sgd
from lmctl.precision.codecs import Int8Rows, Int8RowsAndProducts
from lmctl.precision.int8_weights import Int8Weights
from lmctl.precision.stored_linear import LayerStore, store_weight
from lmctl.precision.stored_optimiser import StoredOptimizer

KINDS = pytest.mark.parametrize("kind", ["linear", "conv1d"])


def layer_of(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(64, 48) if kind == "linear" else Conv1D(48, 64)


@KINDS
def test_the_float_weight_is_gone_and_products_are_those_of_the_stored_one(kind):
    layer = layer_of(kind)
    x, upstream = torch.randn(3, 5, 64, requires_grad=True), torch.randn(3, 5, 48)
    store_weight(layer, Int8Rows("fp32", False))
    plain = layer.restored()
    assert type(plain) in (nn.Linear, Conv1D)
    expected = torch.autograd.grad(plain(x), [x, plain.weight, plain.bias], upstream)
    assert layer.weight.untyped_storage().size() == 0
    y = layer(x)
    assert layer.weight.shape == plain.weight.shape
    assert torch.allclose(y, plain(x), atol=1e-6)
    y.backward(upstream)
    for ours, theirs in zip((x.grad, layer.weight.grad, layer.bias.grad), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert layer.kept.noise / layer.kept.signal < 1e-4


@KINDS
def test_int8_products_of_stored_weights_are_near(kind):
    layer = layer_of(kind)
    x, upstream = torch.randn(3, 5, 64, requires_grad=True), torch.randn(3, 5, 48)
    exact = [layer(x), *torch.autograd.grad(layer(x), [x, layer.weight], upstream)]
    store_weight(layer, Int8RowsAndProducts("fp32", False, False))
    ours = [layer(x), *torch.autograd.grad(layer(x), [x, layer.weight], upstream)]
    for a, b in zip(ours, exact, strict=True):
        assert 1e-3 < relative(a, b) < 0.03


def test_gradients_come_in_bf16_where_wanted():
    layer = layer_of("linear")
    store_weight(layer, Int8Rows("fp32", False), torch.bfloat16)
    layer(torch.randn(4, 64)).sum().backward()
    assert layer.weight.grad.dtype == torch.bfloat16
    assert layer.bias.grad.dtype == torch.float32


def test_state_is_plain_tensors_and_comes_back(tmp_path: Path):
    one, two = nn.Sequential(layer_of("linear")), nn.Sequential(nn.Linear(64, 48))
    for network in (one, two):
        store_weight(network[0], Int8Rows("fp32", False))
    save_file(one.state_dict(), tmp_path / "x.safetensors")
    state = load_file(tmp_path / "x.safetensors")
    assert {name: value.dtype for name, value in state.items()} == {
        "0.weight_int8": torch.int8,
        "0.weight_scale": torch.float32,
        "0.bias": torch.float32,
    }
    x = torch.randn(4, 64)
    assert two.load_state_dict(state, strict=True).missing_keys == []
    assert torch.equal(one(x), two(x))
    before = torch.get_rng_state()
    assert torch.equal(restored_copy(one)(x), one(x))
    assert torch.equal(torch.get_rng_state(), before)
    assert type(restored_copy(one)[0]) is nn.Linear


CPU = torch.device("cpu")
OPTIMISERS = {
    "adamw": lambda network: AdamW(lr=1e-2).optimiser(network, CPU),
    "sgd": lambda network: Sgd(lr=0.1, momentum=0.9).optimiser(network, CPU),
    "plain adamw": lambda network: torch.optim.AdamW(network.parameters(), lr=1e-2),
    "rmsprop": lambda network: torch.optim.RMSprop(network.parameters(), lr=1e-2),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_any_optimiser_steps_as_on_float_weights(name):
    """One step is the float step on the stored weight, rounded to one of the two neighbours; what is not stored moves
    as ever."""
    network = nn.Sequential(layer_of("linear"), nn.Linear(48, 8))
    store_weight(network[0], Int8Rows("fp32", False))
    twin, make = restored_copy(network), OPTIMISERS[name]
    ours = StoredOptimizer(make(network), [LayerStore(network[0])], seed=1)
    theirs = make(twin)
    x = torch.randn(16, 64)
    for _ in range(3):
        with torch.no_grad():
            twin[0].weight.copy_(network[0].read())
        for one, optimizer in ((network, ours), (twin, theirs)):
            optimizer.zero_grad()
            one(x).square().sum().backward()
            optimizer.step()
        step = network[0].weight_scale[:, None]
        assert ((network[0].read() - twin[0].weight).abs() <= step * 1.0001).all()
        assert torch.allclose(network[1].weight, twin[1].weight, atol=1e-5)
        assert network[0].weight.untyped_storage().size() == 0


def test_small_updates_arrive_on_average():
    """A step of a hundredth of the grid, a thousand times: rounding to nearest would stay where it is."""
    layer = nn.Linear(64, 64, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.5)
        layer.weight[:, 0] = 1.0
    store_weight(layer, Int8Rows("fp32", False))
    optimizer = StoredOptimizer(torch.optim.SGD(layer.parameters(), lr=1.0), [LayerStore(layer)], seed=3)
    gradient = torch.full((64, 64), 0.01 / 127)
    gradient[:, 0] = 0.0
    before = float(layer.read()[:, 1:].mean())
    for _ in range(1000):
        layer.weight.grad = gradient.clone()
        optimizer.step()
    assert float(layer.read()[:, 1:].mean()) == pytest.approx(before - 1000 * 0.01 / 127, abs=2e-3)


def test_the_seed_the_step_and_the_number_make_the_noise():
    """Of layers that are alike and move alike."""

    def moved(seed: int) -> list[torch.Tensor]:
        layers = nn.Sequential(layer_of("linear"), layer_of("linear"))
        for layer in layers:
            store_weight(layer, Int8Rows("fp32", False))
        plain, stores = torch.optim.SGD(layers.parameters(), 1.0), [LayerStore(layer) for layer in layers]
        optimizer = StoredOptimizer(plain, stores, seed)
        found = []
        for _ in range(2):
            before = [layer.read() for layer in layers]
            for parameter in layers.parameters():
                parameter.grad = torch.full(parameter.shape, 1e-4)
            optimizer.step()
            found += [layer.read() != old for layer, old in zip(layers, before, strict=True)]
        return found

    first, again, other = moved(3), moved(3), moved(4)
    assert all(map(torch.equal, first, again))
    assert len({bytes(place.numpy()) for place in (*first, *other)}) == 8


def test_a_device_decides_about_found_inf_through_the_wrapper():
    layer = nn.Linear(8, 8)
    store_weight(layer, Int8Rows("fp32", False))
    fused = torch.optim.AdamW(layer.parameters(), fused=True)
    optimizer = StoredOptimizer(fused, [LayerStore(layer)], seed=3)
    assert optimizer._step_supports_amp_scaling
    optimizer.grad_scale, optimizer.found_inf = None, torch.ones(())
    before = layer(torch.eye(8)).clone()
    layer(torch.randn(4, 8)).sum().backward()
    optimizer.step()
    assert torch.equal(layer(torch.eye(8)), before)
    assert fused.found_inf is optimizer.found_inf


def test_it_moves_without_its_weight():
    network = nn.Sequential(layer_of("conv1d"))
    names = [name for name, _ in network.named_parameters()]
    store_weight(network[0], Int8Rows("fp32", False))
    moved = network.to("meta")
    assert [name for name, _ in moved.named_parameters()] == names
    assert {tensor.device.type for tensor in (*moved.parameters(), *moved.buffers())} == {"meta"}
    assert moved[0].weight.shape == (64, 48)


def test_compile_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"int8_weights keeps weights where torch\.compile does not look"):
        plan(precision=Int8Weights(), compile=True)


def test_two_processes_keep_the_same_bits(both):
    for name, one in both[0]["stored"].items():
        other = both[1]["stored"][name]
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name
