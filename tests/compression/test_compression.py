"""The stages of compression as pure functions, against slow and obvious ones."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import plan

from lmctl.compression.coding import decode_positions, encode_positions, positions_size
from lmctl.compression.compressor import Compressor
from lmctl.compression.gradient_layout import layout_of
from lmctl.compression.powersgd import PowerSgd
from lmctl.compression.quantise import Bf16, Fp16, Fp32, Int8, Sign
from lmctl.compression.top_k import LEAST, candidates, survivors
from lmctl.compression.traffic import all_reduce_bytes, gather_bytes, scatter_bytes
from lmctl.core.errors import ConfigError
from lmctl.optim.adamw import AdamW
from lmctl.optim.muon import Muon
from lmctl.optim.sgd import Sgd
from lmctl.runner.simulated import Simulated

floats = st.floats(-(2.0**100), 2.0**100, width=32).map(lambda x: 0.0 if abs(x) < 2.0**-80 else x)
vectors = st.lists(floats, min_size=1, max_size=70)
quick = settings(max_examples=60, deadline=None)


def through(quantiser, values: list[float]) -> list[float]:
    rows = torch.tensor([values, values[::-1]])
    message = quantiser.encode(rows)
    assert message.dtype == torch.uint8
    assert len(message) == 2
    there = quantiser.decode(message, len(values))
    assert torch.equal(quantiser.decode(message[1:], len(values))[0], there[1])
    return there[0].tolist()


@quick
@given(vectors, st.integers(1, 20))
def test_int8_is_a_grid_of_255_points_per_block(values, block):
    there = through(Int8(block), values)
    for start in range(0, len(values), block):
        largest = max(map(abs, values[start : start + block]))
        for value, arrived in zip(values[start : start + block], there[start : start + block], strict=True):
            assert abs(value - arrived) <= largest / 254 * 1.0001
            assert abs(arrived) <= largest * 1.0001
    assert len(Int8(block).encode(torch.tensor([values]))[0]) == len(values) + 4 * math.ceil(len(values) / block)


@quick
@given(vectors, st.integers(1, 20))
def test_fp16_never_overflows(values, block):
    there = through(Fp16(block), values)
    for start in range(0, len(values), block):
        largest = max(map(abs, values[start : start + block]))
        for value, arrived in zip(values[start : start + block], there[start : start + block], strict=True):
            assert abs(value - arrived) <= max(abs(value) * 2**-11, largest * 2**-39) * 1.0001
    assert len(Fp16(block).encode(torch.tensor([values]))[0]) == 2 * len(values) + 4 * math.ceil(len(values) / block)


def test_powers_of_two_do_not_round():
    """What fp16 holds exactly arrives exactly, whatever the block is multiplied by."""
    values = [1.0, -3.0, 2047.0, 0.25, 0.0]
    for exponent in (-100, -20, 0, 50, 100):
        scaled = [value * 2.0**exponent for value in values]
        assert through(Fp16(8), scaled) == scaled


@quick
@given(vectors, st.integers(1, 20))
def test_sign_and_mean_magnitude(values, block):
    there = through(Sign(block), values)
    for start in range(0, len(values), block):
        piece = values[start : start + block]
        mean = sum(map(abs, piece)) / len(piece)
        for value, arrived in zip(piece, there[start : start + block], strict=True):
            assert arrived == pytest.approx(mean if value >= 0 else -mean, rel=1e-5)
    bits, scales = math.ceil(len(values) / 8), math.ceil(len(values) / block)
    assert len(Sign(block).encode(torch.tensor([values]))[0]) == bits + 4 * scales


@quick
@given(vectors)
def test_half_the_mantissa_and_none_of_it(values):
    assert through(Fp32(), values) == values
    assert through(Bf16(), values) == torch.tensor(values).bfloat16().tolist()


@quick
@given(st.integers(1, 300_000), st.data())
def test_positions_take_two_bytes(n, data):
    positions = sorted(data.draw(st.sets(st.integers(0, n - 1), max_size=40)))
    message = encode_positions(torch.tensor(positions, dtype=torch.int64), n)
    assert len(message) == positions_size(n, len(positions)) == 2 * len(positions) + 4 * math.ceil(n / 65536)
    assert decode_positions(message, n, len(positions)).tolist() == positions


@quick
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=60, unique_by=abs), st.data(), st.booleans())
def test_the_largest_survive(values, data, sampled):
    k = data.draw(st.integers(1, len(values)))
    kept = sorted(sorted(range(len(values)), key=lambda i: -abs(values[i]))[:k])
    assert survivors(torch.tensor(values).float(), k, sampled).tolist() == kept


@pytest.mark.parametrize("shape", ["dense", "few", "columns", "zeros"])
@pytest.mark.parametrize("density", [0.0003, 0.01, 0.1])
def test_a_sampled_threshold_finds_the_same(shape, density):
    torch.manual_seed(3)
    values = torch.randn(300, 128)
    if shape == "few":
        values[10:] = 0
    elif shape == "columns":
        values[:, ::2] *= 100
    elif shape == "zeros":
        values.zero_()
    values = values.flatten()
    assert len(values) > LEAST
    k = math.ceil(density * len(values))
    sampled, exact = survivors(values, k, sampled=True), survivors(values, k, sampled=False)
    assert torch.equal(sampled.sort().values, sampled)
    assert len(sampled.unique()) == k
    assert torch.equal(values[sampled].abs().sort().values, values[exact].abs().sort().values)
    if shape == "dense" and density < 0.1:  # it looked at few of them
        assert k <= len(candidates(values.abs(), k)) < len(values) / 20


def test_traffic():
    assert [all_reduce_bytes(1200, w) for w in (1, 2, 4)] == [1200, 1200, 1800]
    assert [gather_bytes(1200, w) for w in (1, 2, 4)] == [1200, 1200, 3600]
    assert [scatter_bytes(1200, w) for w in (1, 2, 4)] == [600, 600, 900]


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.ModuleDict({"a": torch.nn.Linear(40, 30), "b": torch.nn.Linear(8, 8)})
        self.frozen = torch.nn.Parameter(torch.zeros(50, 50), requires_grad=False)


def test_what_is_sent_whole():
    layout = layout_of(Net(), 100, [], lambda shape: True)
    assert [part.name for part in layout.compressed] == ["a.weight"]
    assert [(part.name, part.start) for part in layout.whole] == [("a.bias", 0), ("b.weight", 30), ("b.bias", 94)]
    layout = layout_of(Net(), 0, ["a.*"], lambda shape: True)
    assert [part.name for part in layout.compressed] == ["b.weight"]
    with pytest.raises(ConfigError, match=r"compression\.exclude: no parameter's name fits '\*embed\*'"):
        layout_of(Net(), 0, ["*embed*"], lambda shape: True)
    with pytest.raises(ConfigError, match=r"its largest matrix has 1,200 values"):
        layout_of(Net(), 5000, [], lambda shape: True)


def test_a_powersgd_that_does_not_pay_is_not_made():
    assert PowerSgd(rank=4).pays((100, 100))
    assert not PowerSgd(rank=4).pays((100, 8))
    assert not PowerSgd(rank=30).pays((100, 100))


@pytest.mark.parametrize(
    ("option", "settings", "message"),
    [
        (Compressor, {"density": 0}, "density must be above 0"),
        (Compressor, {"density": 1.1}, "density must be above 0, up to 1"),
        (Compressor, {"density": 0.1, "warmup_steps": -1}, "warmup_steps must not be negative"),
        (Compressor, {"density": 0.1, "warmup_steps": 5, "warmup_density": 0.01}, "warmup_density must be from dens"),
        (Compressor, {"density": 0.1, "warmup_steps": 5, "warmup_density": 1.0}, "warmup_density must be from density"),
        (Compressor, {"density": 0.1, "momentum": 1.0}, "momentum must be from 0 to below 1"),
        (Compressor, {"momentum": 0.9}, "momentum corrects for what is sent late"),
        (Compressor, {"density": 0.1, "momentum": 0.9, "error_feedback": False}, "momentum corrects"),
        (Compressor, {"dense_below": -1}, "dense_below must not be negative"),
        (Compressor, {"simulate_workers": 0}, "simulate_workers must be above 0"),
        (PowerSgd, {"probe_every": 0}, "probe_every must be above 0"),
        (PowerSgd, {"rank": 0}, "rank must be at least 1"),
        (PowerSgd, {"least_ratio": 0.5}, "least_ratio must be at least 1"),
        (Int8, {"block": 0}, "block must be at least 1"),
        (Fp16, {"block": 0}, "block must be at least 1"),
        (Sign, {"block": 0}, "block must be at least 1"),
    ],
)
def test_rules(option, settings, message):
    with pytest.raises(ValueError, match=message):
        option(**settings)


TOPK = Compressor(density=0.01)


def test_who_can_use_it():
    for changes, world, workers in (
        ({}, 1, 1),
        ({}, 2, 2),
        ({"compression": TOPK}, 2, 2),
        ({"compression": Compressor(simulate_workers=4)}, 1, 4),
        ({"runner": Simulated(3), "size": 6}, 1, 3),
        ({"runner": Simulated(4), "compression": Compressor(simulate_workers=4)}, 1, 4),
    ):
        assert plan(**changes).workers(world) == workers
    for option, world, optim, message in (
        (TOPK, 1, AdamW(), "there is no gradient exchange in a single process"),
        (Compressor(simulate_workers=4), 2, AdamW(), "4 simulated workers are threads of one process"),
        (Compressor(local_clip=True), 2, AdamW(), "needs clip_norm|takes its norm from clip_norm, which is null"),
        (Compressor(density=0.1, momentum=0.9), 2, Sgd(momentum=0.9), "would both be applied"),
        (Compressor(density=0.1, momentum=0.9), 2, AdamW(), "has a momentum of its own"),
        (Compressor(density=0.1, momentum=0.9), 2, Muon(), "has a momentum of its own"),
    ):
        with pytest.raises(ConfigError, match=message):
            plan(compression=option, optim=optim, clip_norm=None).workers(world)
    with pytest.raises(ConfigError, match=r"runner\.workers=2 and compression\.simulate_workers=4 both say"):
        plan(runner=Simulated(2), compression=Compressor(simulate_workers=4))


def test_adam_is_warned_of_aggressive_pruning():
    assert "Tang et al. 2021" in TOPK.remarks(AdamW())[0]
    assert TOPK.remarks(Sgd()) == Compressor(quantise=Int8()).remarks(AdamW()) == []
    assert Compressor(quantise=Sign()).remarks(AdamW())
