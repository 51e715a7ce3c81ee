"""Optimisers: every setting reaches the rule, layers move as fast as `layer_decay` says, 8-bit moments are nearly those
of 32 bits, and settings out of range are refused."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from small import moves, plan, poison, prepared

from lmctl.config.schema import Budget
from lmctl.core.errors import ConfigError, Diverged
from lmctl.model.bert import Bert
from lmctl.optim.adamw import AdamW
from lmctl.optim.muon import Muon
from lmctl.optim.sgd import Sgd
from lmctl.precision.int8_full import Int8Full
from lmctl.precision.int8_weights import Int8Weights
from lmctl.train.trainer import Trainer
from lmctl.train.weight_memory import bytes_per_parameter

CPU = torch.device("cpu")
WIDE = Bert(2, 128, 2, 256, max_positions=64, dropout=0.0, attention_dropout=0.0)
"""Its matrices are large enough for 8-bit moments."""
ALL = {"lr": 0.25, "weight_decay": 0.2, "layer_decay": 0.5}
ADAM = {"betas": [0.5, 0.6], "eps": 0.125}
RULES: dict[str, tuple[Any, dict[str, Any]]] = {
    "adamw": (AdamW(), ALL | ADAM | {"state_bits": 8}),
    "adamw8bit": (AdamW(state_bits=8), ALL | ADAM),
    "muon": (Muon(), ALL | ADAM | {"momentum": 0.5, "nesterov": False}),
    "sgd": (Sgd(), ALL | {"momentum": 0.5, "nesterov": True}),
}
"""Each rule, and another value for every setting."""


class Stack(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)

    def layers(self) -> list[list[torch.nn.Parameter]]:
        return [list(self.low.parameters()), list(self.high.parameters())]

    def stacks(self) -> dict[str, list[torch.nn.Module]]:
        return {"layers": [self.high]}


def shown(spec: Any) -> dict[str, Any]:
    """What the made optimiser shows of its settings, by torch's and bitsandbytes' names; of matrices."""
    made = spec.optimiser(Stack(), CPU)
    group: dict[str, Any] = {}
    for one in made.param_groups:
        if one["params"] and one["params"][0].ndim == 2:
            group |= one
    bits = made.args.optim_bits if hasattr(made, "args") else 32
    factors = sorted({g.get("lr_factor", 1.0) for g in made.param_groups})
    return {**group, "betas": list(group.get("betas", ())), "state_bits": bits, "layer_decay": min(factors)}


@pytest.mark.parametrize("name", RULES)
def test_every_setting_reaches_the_rule(name):
    spec, others = RULES[name]
    if name != "adamw8bit":
        assert set(others) | {"paged", "cautious_updates", "cautious_decay"} >= {field.name for field in fields(spec)}
    for setting, value in others.items():
        more = {"momentum": 0.9} if setting == "nesterov" else {}
        changed = replace(spec, **more | {setting: value})
        assert getattr(spec, setting) != value
        assert shown(spec)[setting] == getattr(spec, setting)
        assert shown(changed)[setting] == value


@pytest.mark.parametrize("spec", [Sgd(weight_decay=0.2), AdamW(weight_decay=0.2, state_bits=8)], ids=repr)
def test_vectors_do_not_decay(spec):
    made = spec.optimiser(Stack(), CPU)
    assert {(p.ndim, g["weight_decay"]) for g in made.param_groups for p in g["params"]} == {(2, 0.2), (1, 0.0)}


def factor_of(name: str) -> float:
    """Clark et al. 2020 (ELECTRA), appendix B: half as fast with every layer below the heads, of a BERT with two."""
    if "embeddings" in name:
        return 0.125
    return {"0": 0.25, "1": 0.5}[name.split("encoder.layer.")[1][0]] if "encoder.layer." in name else 1.0


def test_layers_move_as_fast_as_layer_decay_says(alone):
    alike, decayed = moves(alone, optim=Sgd(lr=1.0)), moves(alone, optim=Sgd(lr=1.0, layer_decay=0.5))
    moved = [name for name, move in alike.items() if move.norm() > 1e-4]
    assert {factor_of(name) for name in moved} == {0.125, 0.25, 0.5, 1.0}
    for name in moved:
        torch.testing.assert_close(decayed[name], factor_of(name) * alike[name], rtol=1e-3, atol=1e-6)


def test_adams_first_step_is_as_long_as_the_layer_may(alone):
    """A step of Adam without decay is the learning rate itself, up or down, wherever the gradient is not tiny."""
    decayed = moves(alone, optim=AdamW(lr=1e-2, layer_decay=0.5, weight_decay=0.0, eps=1e-12))
    for name, move in decayed.items():
        if move.norm() > 0 and move.ndim == 2:
            assert float(move.abs().median()) in (0.0, pytest.approx(1e-2 * factor_of(name), rel=1e-3)), name


def test_weights_in_low_precision_have_their_layers_rate_too(alone):
    trainer = Trainer(plan(precision=Int8Weights(), optim=Sgd(layer_decay=0.5)), prepared(), alone)
    next(trainer.steps())
    groups = trainer.step.optimizer.param_groups
    assert {round(g["lr"] / max(g["lr"] for g in groups), 6) for g in groups} == {0.125, 0.25, 0.5, 1.0}


def test_steps_of_8_bits_are_nearly_those_of_32():
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


def test_memory_is_that_of_the_tensors(alone):
    found = {}
    for name, bits, changes in (("32", 32, {}), ("8", 8, {}), ("int8", 8, {"precision": Int8Full(gradients="bf16")})):
        own = plan(model=WIDE, optim=AdamW(state_bits=bits), budget=Budget(steps=1), **changes)
        trainer = Trainer(own, prepared(), alone)
        list(trainer.steps())
        found[name] = bytes_per_parameter(trainer.learner, trainer.network, trainer.step.optimizer)
    assert found["32"] == pytest.approx({"weights": 4, "gradients": 4, "optimiser": 8, "total": 16}, abs=0.01)
    assert found["8"]["total"] == pytest.approx(10.1, abs=0.2)
    assert found["int8"]["total"] == pytest.approx(6, abs=0.7)  # 5 for the layers, 10 for embeddings and heads


@pytest.mark.parametrize("precision", [plan().precision, Int8Full()], ids=["fp32", "int8_full"])
def test_a_step_of_8_bits_that_is_not_finite_is_not_taken(alone, precision):
    trainer = Trainer(plan(optim=AdamW(state_bits=8), precision=precision), prepared(), alone)
    next(trainer.steps())
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    poison(trainer, float("nan"))
    with pytest.raises(Diverged, match="the gradient of model"):
        list(trainer.steps())
    assert all(torch.equal(before[name], value) for name, value in trainer.network.state_dict().items())


@pytest.mark.parametrize(
    ("rule", "changes", "message"),
    [
        (AdamW, {"state_bits": 4}, "state_bits must be 32 or 8"),
        (AdamW, {"paged": True}, "paged needs state_bits=8"),
        (Muon, {"lr": 0.0}, "lr must be above 0"),
        (Muon, {"momentum": 1.0}, "momentum must be above 0 and below 1"),
        (Muon, {"betas": [0.9]}, "betas are two numbers"),
        (Muon, {"weight_decay": -1.0}, "weight_decay must not be negative"),
        (Muon, {"eps": 0.0}, "eps must be above 0"),
        (Muon, {"layer_decay": 2.0}, "layer_decay is a factor"),
    ],
)
def test_settings_out_of_range(rule, changes, message):
    with pytest.raises(ValueError, match=message):
        rule(**changes)


def test_states_are_paged_from_a_gpu_only():
    with pytest.raises(ConfigError, match=r"optim\.paged=true: states are paged from a GPU"):
        AdamW(state_bits=8, paged=True).optimiser(Stack(), CPU)
