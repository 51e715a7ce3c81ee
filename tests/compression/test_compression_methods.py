"""The exchange of a step by each method, with simulated workers, against the papers written out slowly."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmctl.compression.compressor import Compressor
from lmctl.compression.option import Option
from lmctl.compression.powersgd import PowerSgd
from lmctl.compression.quantise import Bf16, Fp16, Fp32, Int8, Quantiser, Sign
from lmctl.parallel.simulate import Baton, ThreadWire, in_turns

WORKERS = 3
SHAPES = {"first": (30, 40), "second": (25, 16), "bias": (40,), "small": (3, 4)}
COMPRESSED = ("first", "second")

METHODS: dict[str, Option] = {
    "fp16": Compressor(quantise=Fp16(), error_feedback=False),
    "bf16": Compressor(quantise=Bf16(), error_feedback=False),
    "int8": Compressor(quantise=Int8(64)),
    "onebit": Compressor(quantise=Sign(128)),
    "topk": Compressor(density=0.1),
    "topk_int8": Compressor(density=0.1, quantise=Int8(16), warmup_steps=3),
    "momentum": Compressor(density=0.1, momentum=0.9),
    "topk_sign": Compressor(density=0.2, quantise=Sign(16)),
    "powersgd": PowerSgd(rank=2),
    "powersgd_cold": PowerSgd(rank=2, warm_start=False),
}


class Learner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name, shape in SHAPES.items():
            setattr(self, name, nn.Parameter(torch.zeros(shape)))


class Steps:
    """Exchanges of workers that are threads, and the gradients that they bring."""

    def __init__(self, option: Option, workers: int = WORKERS, clip_norm: float | None = None) -> None:
        option = replace(option, dense_below=20)
        self.learners = [Learner() for _ in range(workers)]
        self.wires = [ThreadWire(rank, Baton(workers)) for rank in range(workers)]
        both = zip(self.learners, self.wires, strict=True)
        self.exchanges: list[Any] = [option.exchange(learner, wire, clip_norm) for learner, wire in both]
        self.exchange = self.exchanges[0]
        self.random, self.workers, self.number = torch.Generator().manual_seed(5), workers, 0

    def gradients(self) -> list[dict[str, Tensor]]:
        """One step's, for each worker: a part in common, and a part of its own."""
        common = {name: torch.randn(shape, generator=self.random) for name, shape in SHAPES.items()}
        return [
            {name: value + torch.randn(value.shape, generator=self.random) for name, value in common.items()}
            for _ in range(self.workers)
        ]

    def take(self, gradients: list[dict[str, Tensor]], scale: float = 1.0, taken: bool = True) -> dict[str, Tensor]:
        """What arrives, by name; in all workers the same."""

        def work(rank: int, baton: Baton) -> dict[str, Tensor]:
            self.wires[rank].baton = baton
            parameters = dict(self.learners[rank].named_parameters())
            for name, parameter in parameters.items():
                parameter.grad = gradients[rank][name] * scale
            self.exchanges[rank].reduce(scale, self.number)
            return {name: p.grad / scale for name, p in parameters.items() if p.grad is not None}

        first, *others = in_turns(self.workers, work)
        for other in others:
            assert all(torch.equal(first[name], other[name]) or first[name].isnan().any() for name in first)
        self.number += taken
        return first

    def kept(self, kind: str = "residual") -> list[dict[str, Tensor]]:
        return [memory.get(kind, {}) for memory in (state["method"]["memory"] for state in self.states())]

    def states(self) -> list[dict[str, Any]]:
        return [exchange.state_dict() for exchange in self.exchanges]


def mean(gradients: list[dict[str, Tensor]], name: str) -> Tensor:
    return torch.stack([mine[name] for mine in gradients]).mean(dim=0)


def norm(tensors: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float(t.norm()) ** 2 for t in tensors.values()))


@pytest.mark.parametrize("method", [method for method in METHODS if method != "momentum"])
def test_nothing_is_lost(method):
    """All that has arrived, and all that is still kept, add up to all gradients."""
    steps, kept = Steps(METHODS[method]), METHODS[method].error_feedback
    sums = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    arrived = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    for _ in range(6):
        gradients = steps.gradients()
        for name, value in steps.take(gradients).items():
            arrived[name] += value
            sums[name] += mean(gradients, name)
    if kept:
        states = [state["method"] for state in steps.states()]
        for name in COMPRESSED:
            arrived[name] += torch.stack([mine[name].view(SHAPES[name]) for mine in steps.kept()]).mean(dim=0)
        if "owed" in states[0]:  # of one piece, in which both matrices lie end to end
            owed = torch.cat([state["owed"][0] for state in states])
            for place, name in ((0, "first"), (1200, "second")):
                arrived[name] += owed[place : place + sums[name].numel()].view(SHAPES[name])
    for name, value in sums.items():
        tolerance = 2e-5 if kept or name not in COMPRESSED else {"fp16": 1e-3, "bf16": 1e-2}[method]
        torch.testing.assert_close(arrived[name], value, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "momentum"])
def test_every_method_goes_the_right_way(method):
    """Steps whose gradient is always the same: what arrives is on average what was sent."""
    steps = Steps(METHODS[method])
    gradients = steps.gradients()
    total: dict[str, Tensor] = {}
    for _ in range(40):
        total = {name: total.get(name, 0) + value / 40 for name, value in steps.take(gradients).items()}
    for name in SHAPES:
        true = mean(gradients, name)
        assert (total[name] - true).norm() < 0.35 * true.norm(), name


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_descent_arrives_where_it_does_without(momentum):
    """Least squares by SGD, each worker with targets of its own: 5 % of the gradient a step find the common minimum."""
    steps = Steps(Compressor(density=0.05, momentum=momentum, mask_momentum=False))
    targets = steps.gradients()
    for _ in range(400):
        own = [{n: p.detach() - mine[n] for n, p in steps.learners[0].named_parameters()} for mine in targets]
        arrived = steps.take(own)
        with torch.no_grad():
            for name, parameter in steps.learners[0].named_parameters():
                parameter -= 0.02 * (1 - momentum) * arrived[name]
    for name, parameter in steps.learners[0].named_parameters():
        assert (parameter - mean(targets, name)).norm() < 0.08 * mean(targets, name).norm(), name


@pytest.mark.parametrize("feedback", [True, False])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_everything_sent_exactly_is_the_mean(workers, feedback):
    steps = Steps(Compressor(error_feedback=feedback), workers)
    for _ in range(3):
        gradients = steps.gradients()
        for name, value in steps.take(gradients).items():
            torch.testing.assert_close(value, mean(gradients, name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("quantiser", [Fp32(), Bf16(), Fp16(), Int8(64), Sign(64)], ids=lambda q: type(q).__name__)
@pytest.mark.parametrize("feedback", [True, False])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_all_values_and_nearly_all_are_nearly_the_same(quantiser, feedback, workers):
    """At density 1 it is another way (all are scattered) than just below it (few are gathered)."""
    option = Compressor(quantise=quantiser, error_feedback=feedback)
    ways = [Steps(replace(option, density=density), workers) for density in (1.0, 0.9999)]
    arrived = [torch.zeros(1200) for _ in ways]
    for _ in range(12):
        gradients = ways[0].gradients()
        for total, way in zip(arrived, ways, strict=True):
            total += way.take(gradients)["first"].flatten()
    one, other = arrived
    tolerance = 0.25 if isinstance(quantiser, Sign) else 0.02
    if not isinstance(quantiser, Sign) or feedback:
        assert (one - other).norm() < tolerance * other.norm()


@pytest.mark.parametrize("quantiser", [Fp32(), Bf16(), Fp16(), Int8(8), Sign(8)], ids=lambda q: type(q).__name__)
def test_a_message_is_a_copy(quantiser):
    """What is done to values, or to what was received, afterwards changes no message."""
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    message = quantiser.encode(values)
    there, before = quantiser.decode(message, 40), message.clone()
    values.zero_()
    there.zero_()
    assert before.any()
    assert torch.equal(message, before)


def compressed_slowly(v: Tensor, density: float, quantiser: Quantiser) -> Tensor:
    """The largest of a tensor, rounded; zero elsewhere."""
    flat = v.flatten()
    order = sorted(range(len(flat)), key=lambda i: -abs(float(flat[i])))
    places = sorted(order[: math.ceil(density * len(flat))])
    sent = torch.zeros_like(flat)
    sent[places] = quantiser.decode(quantiser.encode(flat[places].unsqueeze(0)), len(places))[0]
    return sent.view_as(v)


@pytest.mark.parametrize("mask", [True, False], ids=["masked", "unmasked"])
@pytest.mark.parametrize("clip_norm", [None, 3.0])
def test_deep_gradient_compression(mask, clip_norm):
    """Algorithm 4 of Lin et al. 2018: local clipping, momentum correction, masking, density warm-up."""
    option = Compressor(
        density=0.05,
        warmup_steps=3,
        warmup_density=0.3,
        momentum=0.9,
        mask_momentum=mask,
        local_clip=clip_norm is not None,
    )
    steps = Steps(option, clip_norm=clip_norm)
    u, v = ([{name: torch.zeros(SHAPES[name]) for name in COMPRESSED} for _ in range(WORKERS)] for _ in "uv")
    whole = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    for number in range(6):
        density = 0.3 * (0.05 / 0.3) ** (min(number, 3) / 3)
        gradients = steps.gradients()
        arrived = steps.take(gradients)
        expected = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
        for k, mine in enumerate(gradients):
            share = {name: g / WORKERS for name, g in mine.items()}  # "1/N" stands in the paper's loss
            if clip_norm is not None:
                limit = clip_norm / math.sqrt(WORKERS)
                share = {name: g * min(1.0, limit / norm(share)) for name, g in share.items()}
            for name, g in share.items():
                if name not in COMPRESSED:
                    whole[name] = whole[name] * (0.9 if k == 0 else 1.0) + g
                    expected[name] = whole[name]
                    continue
                u[k][name] = 0.9 * u[k][name] + g
                v[k][name] = v[k][name] + u[k][name]
                sent = compressed_slowly(v[k][name], density, Fp32())
                v[k][name] = v[k][name] - sent
                if mask:
                    u[k][name] = torch.where(sent != 0, 0.0, u[k][name])
                expected[name] += sent
        for name in SHAPES:
            torch.testing.assert_close(arrived[name], expected[name], rtol=1e-4, atol=1e-5)
    for k in range(WORKERS):
        for name in COMPRESSED:
            for kind, slow in (("residual", v), ("velocity", u)):
                kept = steps.kept(kind)[k][name].view(SHAPES[name])
                torch.testing.assert_close(kept / WORKERS, slow[k][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_powersgd_is_a_projection_of_the_mean(warm):
    """Vogels et al. 2019, written out for the mean of the workers: M becomes P P^T M, P spanning M Q."""
    steps = Steps(PowerSgd(rank=2, warm_start=warm, least_ratio=1.0))
    error = {name: torch.zeros(SHAPES[name], dtype=torch.float64) for name in COMPRESSED}
    right = {name: steps.exchange.state_dict()["method"]["right"][name].double() for name in COMPRESSED}
    for number in range(5):
        gradients = steps.gradients()
        arrived = steps.take(gradients)
        if not warm and number:
            generator = torch.Generator().manual_seed(number)
            right = {name: torch.randn(SHAPES[name][1], 2, generator=generator).double() for name in COMPRESSED}
        for name in COMPRESSED:
            m = mean(gradients, name).double() + error[name]
            left, _ = torch.linalg.qr(m @ right[name])
            right[name] = m.T @ left
            error[name] = m - left @ right[name].T
            torch.testing.assert_close(arrived[name].double(), left @ right[name].T, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_gradient_that_is_not_finite_leaves_no_trace(method):
    steps = Steps(METHODS[method])
    for _ in range(2):
        steps.take(steps.gradients())
    before = [t.clone() for t in tensors(steps.states())]
    for bad in (math.inf, math.nan):
        for name in ("second", "bias"):
            gradients = steps.gradients()
            gradients[1][name].flatten()[7] = bad
            arrived = steps.take(gradients, taken=False)
            assert [n for n, value in arrived.items() if not torch.isfinite(value).all()] == [name]
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(steps.states()), strict=True))
    assert all(torch.isfinite(value).all() for value in steps.take(steps.gradients()).values())


def tensors(state: Any) -> list[Tensor]:
    """All tensors of a nested state, in order."""
    if isinstance(state, Tensor):
        return [state]
    inner = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [tensor for value in inner for tensor in tensors(value)]


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_scale_cancels(method):
    """Gradients of two steps under one scale and under two give the same: residuals are kept without it."""
    plain, scaled = Steps(METHODS[method]), Steps(METHODS[method])
    for scale in (1024.0, 512.0, 65536.0):
        one, other = plain.take(plain.gradients()), scaled.take(scaled.gradients(), scale)
        assert all(torch.equal(one[name], other[name]) for name in SHAPES)


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded_it_goes_on_to_the_bit(method, tmp_path):
    steps, again = Steps(METHODS[method]), Steps(METHODS[method])
    for _ in range(3):
        steps.take(steps.gradients())
    torch.save(steps.states(), tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    for exchange, state in zip(again.exchanges, saved, strict=True):
        exchange.load_state_dict(state)
    again.number = steps.number
    for _ in range(2):
        gradients = steps.gradients()
        one, other = steps.take(gradients), again.take(gradients)
        assert all(torch.equal(one[name], other[name]) for name in SHAPES)


N = sum(math.prod(SHAPES[name]) for name in COMPRESSED)
WHOLE = sum(map(math.prod, SHAPES.values())) - N + len(SHAPES)
"""Values that are sent as they are, with a flag per tensor."""


def survivors(density: float) -> int:
    return sum(math.ceil(density * math.prod(SHAPES[name])) for name in COMPRESSED)


@pytest.mark.parametrize(
    ("method", "workers", "payload"),
    [
        ("topk", 2, 6 * survivors(0.1) + 4),
        ("topk", 4, 3 * (6 * survivors(0.1) + 4)),
        ("topk_int8", 2, 3 * survivors(0.1) + 4 * math.ceil(survivors(0.1) / 16) + 4),
        ("fp16", 2, 2 * N + 2 * 4),
        ("int8", 2, N + 2 * 4 * math.ceil(N / 2 / 64)),
        ("onebit", 2, N // 8 + 2 * 4 * math.ceil(N / 2 / 128)),
        ("powersgd", 2, 4 * 2 * (30 + 40 + 25 + 16)),
        ("powersgd", 1, 4 * 2 * (30 + 40 + 25 + 16)),
        ("topk", 1, 6 * survivors(0.1) + 4),
    ],
)
def test_bytes_are_those_of_the_messages(method, workers, payload):
    option = METHODS[method]
    steps = Steps(replace(option, least_ratio=1.0) if isinstance(option, PowerSgd) else option, workers)
    for _ in range(4):
        steps.take(steps.gradients())
    rings = 1 if workers < 3 else 2 * (workers - 1) / workers
    assert steps.exchange.sent == int(rings * 4 * WHOLE) + payload
    assert steps.exchange.dense == int(rings * 4 * (N + WHOLE - len(SHAPES)))
    assert steps.exchange.figures()["compression_ratio"] == round(steps.exchange.dense / steps.exchange.sent, 2)


def test_the_probe_compares_with_the_true_mean():
    steps = Steps(replace(METHODS["topk"], probe_every=2))
    for number in range(3):
        gradients = steps.gradients()
        arrived = steps.take(gradients)
        a = torch.cat([arrived[name].flatten() for name in SHAPES])
        b = torch.cat([mean(gradients, name).flatten() for name in SHAPES])
        cosine = float(a @ b / a.norm() / b.norm())
        if number % 2 == 0:
            assert steps.exchange.figures()["gradient_cosine"] == pytest.approx(cosine, rel=1e-4)
            last = cosine
        assert steps.exchange.figures()["gradient_cosine"] == pytest.approx(last, rel=1e-4)
    residual = math.sqrt(sum(float(t.norm()) ** 2 for t in steps.kept()[0].values()))
    assert steps.exchange.figures()["residual_norm"] == pytest.approx(residual, rel=1e-5)
    assert steps.exchange.figures()["density"] == 0.1


def test_pieces_do_not_change_what_is_pruned(monkeypatch):
    whole = Steps(METHODS["topk"])
    monkeypatch.setattr("lmctl.compression.sparse.cut", lambda parts: [[part] for part in parts])
    cut = Steps(METHODS["topk"])
    assert len(cut.exchange.method.pieces) == 2
    for _ in range(3):
        one, other = whole.take(whole.gradients()), cut.take(cut.gradients())
        assert all(torch.equal(one[name], other[name]) for name in SHAPES)
