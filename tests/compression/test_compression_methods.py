"""The exchange of a step by each method, with simulated workers, against the papers written out slowly."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from exchanges import COMPRESSED, METHODS, SHAPES, WORKERS, Steps, mean
from torch import Tensor

from lmctl.compression.compressor import Compressor
from lmctl.compression.powersgd import PowerSgd
from lmctl.compression.quantise import Bf16, Fp16, Fp32, Int8, Quantiser, Sign
from lmctl.train.weight_memory import tensors_in


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
    before = [t.clone() for t in tensors_in(steps.states())]
    for bad in (math.inf, math.nan):
        for name in ("second", "bias"):
            gradients = steps.gradients()
            gradients[1][name].flatten()[7] = bad
            arrived = steps.take(gradients, taken=False)
            assert [n for n, value in arrived.items() if not torch.isfinite(value).all()] == [name]
    assert all(torch.equal(a, b) for a, b in zip(before, tensors_in(steps.states()), strict=True))
    assert all(torch.isfinite(value).all() for value in steps.take(steps.gradients()).values())


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
