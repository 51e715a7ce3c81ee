"""Optimisers: every setting reaches the rule, and layers move as fast as `layer_decay` says."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from small import plan, prepared

from lmctl.config.schema import Budget
from lmctl.core.errors import ConfigError
from lmctl.optim.adamw import AdamW
from lmctl.optim.muon import Muon
from lmctl.optim.sgd import Sgd
from lmctl.parallel.processes import Processes
from lmctl.precision.int8_weights import Int8Weights
from lmctl.schedule.shapes import Constant
from lmctl.train.trainer import Trainer

CPU = torch.device("cpu")
RULES: dict[str, tuple[Any, dict[str, Any]]] = {
    "adamw": (
        AdamW(),
        {"lr": 0.25, "weight_decay": 0.2, "betas": [0.5, 0.6], "eps": 0.125, "layer_decay": 0.5, "state_bits": 8},
    ),
    "adamw8bit": (AdamW(state_bits=8), {"lr": 0.25, "weight_decay": 0.2, "betas": [0.5, 0.6], "eps": 0.125}),
    "muon": (
        Muon(),
        {
            "lr": 0.25,
            "weight_decay": 0.2,
            "momentum": 0.5,
            "nesterov": False,
            "betas": [0.5, 0.6],
            "eps": 0.125,
            "layer_decay": 0.5,
        },
    ),
    "sgd": (Sgd(), {"lr": 0.25, "momentum": 0.5, "nesterov": True, "weight_decay": 0.2, "layer_decay": 0.5}),
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
        assert set(others) | {"paged"} >= {field.name for field in fields(spec)}
    for setting, value in others.items():
        more = {"momentum": 0.9} if setting == "nesterov" else {}
        changed = replace(spec, **more | {setting: value})
        assert getattr(spec, setting) != value
        assert shown(spec)[setting] == getattr(spec, setting)
        assert shown(changed)[setting] == value
    if hasattr(spec, "paged"):
        with pytest.raises(ConfigError, match=r"optim\.paged=true: states are paged from a GPU"):
            AdamW(state_bits=8, paged=True).optimiser(Stack(), CPU)


def test_vectors_do_not_decay():
    made = Sgd(weight_decay=0.2).optimiser(Stack(), CPU)
    assert {(p.ndim, g["weight_decay"]) for g in made.param_groups for p in g["params"]} == {(2, 0.2), (1, 0.0)}


PLAIN = {"schedule": Constant(), "clip_norm": None, "budget": Budget(steps=1)}


def moves(**changes: Any) -> dict[str, torch.Tensor]:
    """How far each parameter goes in a step."""
    runner = Trainer(plan(**PLAIN | changes), prepared(), Processes(on_cpu=True))
    before = {name: p.detach().clone() for name, p in runner.network.named_parameters()}
    list(runner.steps())
    return {name: p.detach() - before[name] for name, p in runner.network.named_parameters()}


def factor_of(name: str) -> float:
    """Clark et al. 2020 (ELECTRA), appendix B: half as fast with every layer below the heads, of a BERT with two."""
    if "embeddings" in name:
        return 0.125
    return {"0": 0.25, "1": 0.5}[name.split("encoder.layer.")[1][0]] if "encoder.layer." in name else 1.0


def test_layers_move_as_fast_as_layer_decay_says():
    alike, decayed = moves(optim=Sgd(lr=1.0)), moves(optim=Sgd(lr=1.0, layer_decay=0.5))
    moved = [name for name, move in alike.items() if move.norm() > 1e-4]
    assert {factor_of(name) for name in moved} == {0.125, 0.25, 0.5, 1.0}
    for name in moved:
        torch.testing.assert_close(decayed[name], factor_of(name) * alike[name], rtol=1e-3, atol=1e-6)


def test_adams_first_step_is_as_long_as_the_layer_may():
    """A step of Adam without decay is the learning rate itself, up or down, wherever the gradient is not tiny."""
    decayed = moves(optim=AdamW(lr=1e-2, layer_decay=0.5, weight_decay=0.0, eps=1e-12))
    for name, move in decayed.items():
        if move.norm() > 0 and move.ndim == 2:
            assert float(move.abs().median()) in (0.0, pytest.approx(1e-2 * factor_of(name), rel=1e-3)), name


def test_weights_in_low_precision_have_their_layers_rate_too():
    runner = Trainer(plan(precision=Int8Weights(), optim=Sgd(layer_decay=0.5)), prepared(), Processes(on_cpu=True))
    next(runner.steps())
    groups = runner.step.optimizer.param_groups
    assert {round(g["lr"] / max(g["lr"] for g in groups), 6) for g in groups} == {0.125, 0.25, 0.5, 1.0}
