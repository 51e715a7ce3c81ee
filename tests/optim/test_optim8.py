"""AdamW with 8-bit moments: the same groups and nearly the same steps; steps that are not finite are not taken."""

from __future__ import annotations

import pytest
import torch
from small import plan, poison, prepared

from lmctl.core.errors import ConfigError, Diverged
from lmctl.model.bert import Bert
from lmctl.optim.adamw import AdamW
from lmctl.parallel.processes import Processes
from lmctl.precision.int8_full import Int8Full
from lmctl.train.trainer import Trainer
from lmctl.train.weight_memory import bytes_per_parameter

CPU = torch.device("cpu")
WIDE = Bert(2, 128, 2, 256, max_positions=64, dropout=0.0, attention_dropout=0.0)


@pytest.fixture(scope="module")
def alone() -> Processes:
    return Processes(on_cpu=True)


def test_steps_are_nearly_those_of_32_bits():
    weights = []
    for bits in (32, 8):
        torch.manual_seed(0)
        layer = torch.nn.Linear(128, 64)
        optimizer = AdamW(lr=1e-2, weight_decay=0.1, state_bits=bits).optimiser(layer, CPU)
        before = layer.weight.detach().clone()
        for _ in range(10):
            optimizer.zero_grad()
            layer(torch.randn(32, 128)).square().mean().backward()
            optimizer.step()
        weights.append(layer.weight.detach() - before)
    assert 0 < float((weights[0] - weights[1]).norm() / weights[0].norm()) < 0.1


def test_groups_are_the_same(alone):
    groups = {}
    for bits in (32, 8):
        option = AdamW(layer_decay=0.5, state_bits=bits)
        groups[bits] = option.optimiser(Trainer(plan(model=WIDE), prepared(), alone).network, CPU).param_groups
    for one, other in zip(groups[32], groups[8], strict=True):
        assert (one["weight_decay"], one["lr_factor"]) == (other["weight_decay"], other["lr_factor"])
        assert [p.shape for p in one["params"]] == [p.shape for p in other["params"]]


def test_memory_is_that_of_the_tensors(alone):
    found = {}
    for name, option, precision in (
        ("adamw", AdamW(), plan().precision),
        ("adamw8bit", AdamW(state_bits=8), plan().precision),
        ("int8", AdamW(state_bits=8), Int8Full(gradients="bf16")),
    ):
        runner = Trainer(plan(model=WIDE, optim=option, precision=precision), prepared(), alone)
        list(runner.steps())
        found[name] = bytes_per_parameter(runner.learner, runner.network, runner.step.optimizer)
    assert found["adamw"] == pytest.approx({"weights": 4, "gradients": 4, "optimiser": 8, "total": 16}, abs=0.01)
    assert found["adamw8bit"]["total"] == pytest.approx(10.1, abs=0.2)
    assert found["int8"]["total"] == pytest.approx(6, abs=0.7)  # 5 for the layers, 10 for embeddings and heads


@pytest.mark.parametrize("precision", [plan().precision, Int8Full()], ids=["fp32", "int8_full"])
def test_a_step_that_is_not_finite_is_not_taken(alone, precision):
    runner = Trainer(plan(optim=AdamW(state_bits=8), precision=precision), prepared(), alone)
    next(runner.steps())
    before = {name: value.clone() for name, value in runner.network.state_dict().items()}
    poison(runner, float("nan"))
    with pytest.raises(Diverged, match="the gradient of model"):
        list(runner.steps())
    assert all(torch.equal(before[name], value) for name, value in runner.network.state_dict().items())


def test_rules():
    with pytest.raises(ValueError, match="state_bits must be 32 or 8"):
        AdamW(state_bits=4)
    with pytest.raises(ValueError, match="paged needs state_bits=8"):
        AdamW(paged=True)
    with pytest.raises(ConfigError, match=r"optim\.paged=true"):
        AdamW(paged=True, state_bits=8).optimiser(torch.nn.Linear(2, 2), CPU)
