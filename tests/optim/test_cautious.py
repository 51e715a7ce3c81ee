"""Cautious updates and cautious decay, against the papers' formulas written out, in every rule and precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from resumed import goes_on_to_the_bit
from small import plan, prepared
from torch import Tensor
from two_layers import TwoLayers
from walked import alone

from lmctl.config.schema import Budget
from lmctl.model.bert import Bert
from lmctl.optim.adamw import AdamW
from lmctl.optim.muon import Muon
from lmctl.precision.fp16 import Fp16
from lmctl.precision.fp32 import Fp32
from lmctl.precision.int8_weights import Int8Weights
from lmctl.train.trainer import Trainer

CPU = torch.device("cpu")
KINDS = [(True, False), (False, True), (True, True)]


def stepped(spec: Any, steps: int = 4) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Parameters before and after each step, and their gradients."""
    network = TwoLayers()
    rule = spec.optimiser(network, CPU)
    seen, gradients = [[p.detach().clone() for p in network.parameters()]], []
    for step in range(steps):
        network.zero_grad()
        x = torch.randn(7, 6, generator=torch.Generator().manual_seed(step))
        network.high(network.low(x).tanh()).square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
        rule.step()
        seen.append([p.detach().clone() for p in network.parameters()])
    return seen, gradients


@pytest.mark.parametrize(("updates", "decay"), KINDS)
def test_adamws_steps_are_those_of_the_papers(updates: bool, decay: bool):
    """Liang et al. 2024, algorithm 1; Chen et al. 2025, where Adam's own step is x - lr (u + decay x)."""
    lr, weight_decay, eps, betas = 0.05, 0.4, 1e-8, (0.8, 0.9)
    spec = AdamW(lr, weight_decay, list(betas), eps, cautious_updates=updates, cautious_decay=decay)
    seen, gradients = stepped(spec)
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in seen[0]]
    left_out = 0
    for step, (before, after, found) in enumerate(zip(seen, seen[1:], gradients, strict=False), start=1):
        for place, (x, g) in enumerate(zip(before, found, strict=True)):
            m, v = moments[place]
            m, v = m + (1 - betas[0]) * (g - m), v + (1 - betas[1]) * (g * g - v)
            moments[place] = m, v
            u = m / (1 - betas[0] ** step) / ((v / (1 - betas[1] ** step)).sqrt() + eps)
            if updates:
                mask = (u * g > 0).float()
                left_out += int((mask == 0).sum())
                u = u * mask / mask.mean().clamp(min=1e-3)
            pull = weight_decay * x * ((u * x > 0).float() if decay else 1.0) if x.ndim == 2 else 0.0
            torch.testing.assert_close(after[place], x - lr * (u + pull), rtol=1e-4, atol=1e-6)
    assert left_out > 0 or not updates


def test_muons_matrices_are_cautious_too():
    """A first step goes along the first gradient's orthogonal factor: what disagrees with the gradient stays."""
    settings = {"lr": 0.1, "weight_decay": 0.0}
    (before, plain), ((*_,),) = stepped(Muon(**settings), 1)
    (_, careful), (gradients,) = stepped(Muon(**settings, cautious_updates=True), 1)
    place = 2  # high.weight
    move, agrees = plain[place] - before[place], (plain[place] - before[place]) * gradients[place] < 0
    assert 0 < agrees.sum() < agrees.numel()
    torch.testing.assert_close(
        careful[place] - before[place], move * agrees / agrees.float().mean(), rtol=1e-4, atol=1e-6
    )
    decayed = stepped(Muon(lr=0.1, weight_decay=0.4, cautious_decay=True), 1)[0][1]
    pull = 0.1 * 0.4 * before[place] * (move * before[place] < 0)
    torch.testing.assert_close(decayed[place], plain[place] - pull, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        (AdamW, {"precision": Fp32()}),
        (AdamW, {"precision": Int8Weights()}),
        (Muon, {"precision": Fp16()}),
    ],
    ids=["adamw", "stored weights", "muon with a loss scale"],
)
def test_goes_on_to_the_bit(rule: Any, changes: dict[str, Any], tmp_path):
    own = rule(lr=1e-2, cautious_updates=True, cautious_decay=True)
    shape = {"optim": own, "budget": Budget(steps=6), **changes}
    goes_on_to_the_bit(lambda: Trainer(plan(**shape), prepared(), alone()), 3, tmp_path)


def test_eight_bits_may_be_cautious():
    wide = Bert(1, 64, 2, 128, max_positions=64, dropout=0.0, attention_dropout=0.0)
    found = []
    for careful in (False, True):
        rule = AdamW(lr=1e-2, state_bits=8, cautious_updates=careful, cautious_decay=careful)
        trainer = Trainer(plan(model=wide, optim=rule, budget=Budget(steps=3)), prepared(), alone())
        list(trainer.steps())
        found.append(trainer.network.model.bert.encoder.layer[0].output.dense.weight.detach())
    assert 0 < float((found[0] - found[1]).norm() / found[0].norm()) < 0.5
