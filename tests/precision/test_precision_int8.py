"""int8: products are exact, roundings are what they claim, and linear layers really use them."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch
from compared import relative
from hypothesis import given, settings
from hypothesis import strategies as st
from small import plan, vocabulary
from torch import nn
from transformers.pytorch_utils import Conv1D

from lmctl.core.errors import ConfigError
from lmctl.kernels.plain.quantise import power_of_two, quantise
from lmctl.model.bert import Bert
from lmctl.model.gpt2 import Gpt2
from lmctl.model.llama import Llama
from lmctl.model.modernbert import ModernBert
from lmctl.model.recurrent import RecurrentLM
from lmctl.model.t5 import T5
from lmctl.model.transformer_mt import TransformerMT
from lmctl.objective.clm import CausalLM
from lmctl.precision import arithmetic
from lmctl.precision.counting import as_reference, counting
from lmctl.precision.emulation import HalfProducts
from lmctl.precision.int8 import Int8
from lmctl.precision.linear import LowLinear, QuantisedOnce, announce_updates, low_precision_products
from lmctl.precision.rounding import noise16, to_bf16

CPU = torch.device("cpu")
V = vocabulary()
FAMILIES = {
    "bert": (Bert(2, 32, 2, 64, max_positions=64), "mlm"),
    "modernbert": (ModernBert(3, 32, 2, 48, max_positions=64, local_window=8), "mlm"),
    "gpt2": (Gpt2(2, 32, 2, max_positions=64), "lm"),
    "llama": (Llama(2, 32, 4, 2, 64, max_positions=64), "lm"),
    "t5": (T5(2, 2, 32, 2, 64), "lm"),
    "mt": (TransformerMT(2, 2, 32, 2, 64, max_positions=64), "lm"),
}


finite = st.floats(-1e6, 1e6, width=32)
matrices = st.lists(st.lists(finite, min_size=3, max_size=3), min_size=1, max_size=5)


@given(matrices, st.booleans(), st.sampled_from([0, 1]))
@settings(max_examples=150, deadline=None)
def test_quantised_values_are_within_half_a_step(rows, pow2, dim):
    x = torch.tensor(rows)
    q = quantise(x, dim, pow2)
    assert q.values.abs().max() <= 127
    assert q.scale.shape[dim] == 1
    step = q.scale.expand_as(x)
    assert ((q.values * q.scale.double() - x.double()).abs() <= step.double() * (0.5 + 1e-5)).all()
    coarse = quantise(x, dim, pow2, noise16(x.shape, CPU))
    assert ((coarse.values * q.scale.double() - x.double()).abs() <= step.double() * (1 + 1e-5)).all()
    if pow2:
        assert all(math.frexp(s)[0] == 0.5 for s in q.scale.flatten().tolist())
        assert (q.scale.double() * 127 * (1 + 1e-6) >= x.abs().double().amax(dim, keepdim=True)).all()


@given(st.floats(2.0**-100, 2.0**100, width=32))
@settings(deadline=None)
def test_power_of_two_is_the_next_one(value):
    up = power_of_two(torch.tensor([[value]])).item()
    assert math.frexp(up)[0] == 0.5
    assert up / 2 < torch.tensor(value).item() <= up


@given(st.floats(-126.0, 126.0, width=32))
@settings(max_examples=10, deadline=None)
def test_stochastic_rounding_is_right_on_average(value):
    """Over all 65536 noises, each once: the mean is exact to what the noise's 16 bits allow."""
    noise = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    x = torch.full((1, 65537), value)
    x[0, -1] = 127.0  # sets the scale to 1
    rounded = quantise(x, 1, noise=torch.cat([noise, noise[:1]])[None]).values[0, :-1].double()
    assert abs(rounded.mean().item() - x[0, 0].item()) <= 2.0**-17 + 1e-9
    assert set(rounded.tolist()) <= {math.floor(x[0, 0].item()), math.ceil(x[0, 0].item())}


@given(st.floats(-(2.0**100), 2.0**100, width=32).filter(lambda v: abs(v) > 1e-30))
@settings(max_examples=10, deadline=None)
def test_stochastic_rounding_to_bf16_is_right_on_average(value):
    noise = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    x = torch.full((65536,), value)
    rounded = to_bf16(x, noise).double()
    step = abs(x[0].item()) * 2.0**-7
    assert abs(rounded.mean().item() - x[0].double().item()) <= step * 1e-9
    assert (rounded - x.double()).abs().max() <= step
    assert len(set(rounded.tolist())) <= 2


def test_what_is_on_the_grid_stays():
    grid = torch.arange(-127.0, 128.0)[None]
    for _ in range(20):
        assert torch.equal(quantise(grid, 1, noise=noise16(grid.shape, CPU)).values.float(), grid)
    half = torch.randn(1000).to(torch.bfloat16)
    assert torch.equal(to_bf16(half.float(), noise16(half.shape, CPU)), half)
    odd = torch.tensor([math.inf, -math.inf, math.nan, 0.0])
    assert to_bf16(odd, noise16(odd.shape, CPU)).tolist()[:2] == [math.inf, -math.inf]
    assert to_bf16(odd, noise16(odd.shape, CPU))[2:].isnan().tolist() == [True, False]


def test_noise_is_uniform_and_repeatable():
    one, two = (noise16(torch.Size((1000, 67)), CPU, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert abs(one.double().mean()) < 400  # a standard error is 73
    assert len(one.unique()) > 40_000


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D], ids=["linear", "conv1d"])
@pytest.mark.parametrize("options", [(False, False), (True, False), (True, True)], ids=["nearest", "sr", "pow2"])
def test_all_three_products_are_near_the_float_ones(kind, options):
    torch.manual_seed(0)
    layer = nn.Linear(64, 48) if kind is nn.Linear else Conv1D(48, 64)
    x, upstream = torch.randn(4, 16, 64, requires_grad=True), torch.randn(4, 16, 48)
    exact = [layer(x), *torch.autograd.grad(layer(x), [x, layer.weight, layer.bias], upstream)]
    low_precision_products(layer, arithmetic.Int8Arithmetic(*options))
    with counting() as products:
        ours = [layer(x), *torch.autograd.grad(layer(x), [x, layer.weight, layer.bias], upstream)]
    assert products["int8"] == 4  # two forward passes, one backward
    for a, b in zip(ours[:3], exact[:3], strict=True):
        assert a.shape == b.shape
        assert 1e-3 < relative(a, b) < 0.03
    assert torch.allclose(ours[3], exact[3], atol=1e-5)
    assert torch.equal(layer.weight, next(iter(layer.state_dict().values())))


def test_with_scales_of_powers_of_two_it_is_integer_arithmetic():
    layer = nn.Linear(64, 48, bias=False)
    low_precision_products(layer, arithmetic.Int8Arithmetic(False, True))
    x = torch.randn(16, 64)
    a, b = quantise(x, 1, True), quantise(layer.weight.detach(), 1, True)
    exact = (a.values.long() @ b.values.long().t()).double() * a.scale.double() * b.scale.double().t()
    assert torch.equal(layer(x).double(), exact)


def test_gradients_are_right_on_average():
    torch.manual_seed(0)
    layer = nn.Linear(32, 24)
    x, upstream = torch.randn(64, 32, requires_grad=True), torch.randn(64, 24)

    def gradients(**options):
        low_precision_products(layer, arithmetic.Int8Arithmetic(pow2=False, **options))
        return torch.autograd.grad(layer(x), [x, layer.weight], upstream)

    # Inputs and weights are rounded to nearest either way; what the gradient's rounding adds must average out.
    many = [gradients(stochastic=True) for _ in range(50)]
    for place, nearest in enumerate(gradients(stochastic=False)):
        one, mean = many[0][place], torch.stack([g[place] for g in many]).mean(0)
        exact = torch.autograd.grad(nn.functional.linear(x, layer.weight, layer.bias), [x, layer.weight], upstream)
        assert relative(mean, exact[place]) < 0.85 * relative(one, exact[place])
        assert relative(mean, exact[place]) < 1.1 * relative(nearest, exact[place])


def test_what_is_not_finite_comes_out_not_finite():
    layer = nn.Linear(8, 8)
    low_precision_products(layer, arithmetic.Int8Arithmetic(True, True))
    for value in (math.inf, math.nan):
        x = torch.randn(4, 8, requires_grad=True)
        x.data[1, 2] = value
        y = layer(x)
        assert y.isfinite().all(dim=1).tolist() == [True, False, True, True]
        y.sum().backward()
        assert not layer.weight.grad.isfinite().all()
        layer.weight.grad = None


class Counted(arithmetic.Int8Arithmetic):
    """Counts matrices that are quantised, gradients aside."""

    count: ClassVar[int] = 0

    def quantise(self, values: torch.Tensor, both: bool) -> arithmetic.Operand:
        Counted.count += 1
        return super().quantise(values, both)


def test_weights_are_quantised_once_per_step_and_inputs_once_for_all_their_readers():
    """Three layers that read one tensor, as query, key and value do; two micro-batches; two steps."""
    layers, inputs, Counted.count = nn.ModuleList(nn.Linear(16, 16) for _ in range(3)), QuantisedOnce(), 0
    for layer in layers:
        low_precision_products(layer, Counted(True, False), inputs)
    optimizer = torch.optim.SGD(layers.parameters(), 0.1)
    announce_updates(optimizer, layers)
    for step in (1, 2):
        for _ in range(2):
            x = torch.randn(4, 16, requires_grad=True)
            ys = [layer(x) for layer in layers]
            torch.stack(ys).square().sum().backward()
        assert Counted.count == step * (3 + 2)
        optimizer.step()
    x = torch.randn(4, 16, requires_grad=True)
    before = layers[0](x) - layers[0].bias
    with torch.no_grad():
        x.mul_(2)
    assert torch.allclose(layers[0](x) - layers[0].bias, 2 * before, atol=1e-5), "a changed input is another one"


def test_an_update_behind_torchs_back_is_noticed():
    """bitsandbytes writes to the memory of a parameter."""

    class Foreign(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            layer.weight.detach().numpy()[...] = 1

    layer, x = nn.Linear(8, 8, bias=False), torch.ones(2, 8)
    low_precision_products(layer, arithmetic.Int8Arithmetic(False, False))
    optimizer = Foreign(layer.parameters(), 1)
    announce_updates(optimizer, layer)
    layer(x)
    optimizer.step()
    assert torch.allclose(layer(x), torch.full((2, 8), 8.0))


def test_what_is_kept_for_the_backward_pass_is_int8():
    layer = nn.Linear(64, 48)
    low_precision_products(layer, arithmetic.Int8Arithmetic(True, False))
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(torch.randn(32, 64, requires_grad=True))
    assert sum(t.nbytes for t in kept) == 32 * 64 + 48 * 64 + 2 * 4 * 64
    layer.weight.requires_grad_(False)
    kept.clear()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(torch.randn(32, 64, requires_grad=True))
    assert sum(t.nbytes for t in kept) == 48 * 64 + 4 * 64, "a frozen weight's gradient needs no input"


def test_autocast_and_emulation_do_not_reach_into_the_integer_product():
    layer = nn.Linear(2048, 16, bias=False)
    low_precision_products(layer, arithmetic.Int8Arithmetic(False, False))
    x = torch.randn(8, 2048)
    plain = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x), plain.to(torch.bfloat16))
        with HalfProducts(torch.bfloat16):
            assert torch.equal(layer(x), plain.to(torch.bfloat16))


def inputs_of(spec) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, V.size, (3, 20), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids} | ({"decoder_input_ids": ids[:, :9]} if spec.family == "seq2seq" else {})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_layer_of_every_family_is_used_in_int8(family):
    spec, head = FAMILIES[family]
    torch.manual_seed(0)
    network = spec.load(V, {head: V.size}).eval()
    names = list(network.state_dict())
    lines = Int8().convert(network, CPU)
    assert list(network.state_dict()) == names
    low = [module for module in network.modules() if hasattr(module, "arithmetic")]
    read = torch.arange(3 * (9 if spec.family == "seq2seq" else 20))
    with counting() as products:
        logits = network.head(head, network.encode(inputs_of(spec), read))
    assert products["int8"] == len(low)
    assert f"int8 products: {len(low)} linear layers" in lines[0]
    inside = {"bert": 12, "modernbert": 12, "gpt2": 8, "llama": 14, "t5": 36, "mt": 32}[family]
    assert len(low) == inside
    with as_reference():
        exact = network.head(head, network.encode(inputs_of(spec), read))
    assert 0 < relative(logits, exact) < 0.05


def test_adapters_and_shared_weights_stay_in_float():
    network = nn.Module()
    network.embeddings, network.first = nn.Embedding(8, 8), nn.Linear(8, 8)
    network.tied, network.lora_A = nn.Linear(8, 8, bias=False), nn.Linear(8, 2)
    network.tied.weight = network.embeddings.weight
    lines = Int8(exclude=["lora_*"]).convert(network, CPU)
    assert isinstance(network.first, LowLinear)
    assert type(network.tied) is type(network.lora_A) is nn.Linear
    assert "tied, lora_A" in lines[1]


def test_models_without_linear_layers_are_refused_before_any_work():
    with pytest.raises(ConfigError, match="works on linear layers, and RecurrentLM has none but its head; nearest"):
        plan(model=RecurrentLM(1, 32), objective=CausalLM(), precision=Int8())
    with pytest.raises(ConfigError, match=r"this network has none but model\.lm_head, which precision\.exclude"):
        Int8().convert(RecurrentLM(1, 32).load(V, {"lm": V.size}), CPU)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="scale must be float or pow2"):
        Int8(scale="log")
    with pytest.raises(ValueError, match="float_products must be fp32 or bf16"):
        Int8(float_products="fp16")
