"""`optim=muon`: which parameters it takes, whose steps they are, and that every precision goes on to the bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from resumed import goes_on_to_the_bit
from small import moves, plan, prepared, vocabulary
from two_layers import TwoLayers

from lmctl.config.schema import Budget
from lmctl.model.bert import Bert
from lmctl.model.gpt2 import Gpt2
from lmctl.model.recurrent import RecurrentLM
from lmctl.model.t5 import T5
from lmctl.optim.adamw import AdamW
from lmctl.optim.groups import hidden_matrices
from lmctl.optim.muon import Muon
from lmctl.precision.bf16 import Bf16
from lmctl.precision.bf16_pure import Bf16Pure
from lmctl.precision.fp16 import Fp16
from lmctl.precision.int8_full import Int8Full
from lmctl.precision.int8_weights import Int8Weights
from lmctl.train.precision_proof import prove
from lmctl.train.trainer import Trainer

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("spec", "heads", "inside", "outside"),
    [
        (Bert(1, 16, 2, 32), {"mlm": 0, "topics": 3}, 6, ["embeddings", "transform", "class_heads"]),
        (Gpt2(1, 16, 2), {"lm": 0}, 4, ["wte", "wpe"]),
        (T5(1, 1, 16, 2, 32), {"lm": 0}, 18, ["shared", "relative_attention_bias"]),
        (RecurrentLM(1, 16), {"lm": 0}, 2, ["embed"]),
    ],
    ids=["bert", "gpt2", "t5", "lstm"],
)
def test_neither_embeddings_nor_heads_nor_vectors(spec: Any, heads: dict[str, int], inside: int, outside: list[str]):
    words = vocabulary()
    network = spec.load(words, {name: outputs or words.size for name, outputs in heads.items()})
    hidden = hidden_matrices(network)
    taken = {name: p for name, p in network.named_parameters() if id(p) in hidden}
    left = [name for name, p in network.named_parameters() if p.ndim > 1 and id(p) not in hidden]
    assert {p.ndim for p in taken.values()} == {2}
    assert len(taken) == inside, sorted(taken)
    assert not [name for name in taken if any(word in name for word in outside)]
    assert all(any(word in name for name in left) for word in outside), left


def test_inside_layers_steps_are_muons_and_elsewhere_adamws(alone):
    """After Jordan et al. 2024 the singular values of a step lie around 1, here times the learning rate and the factor
    of Liu et al. 2025 (section 2.2): their root mean square is about 0.2 of the learning rate, whatever the shape."""
    lr, network = 1e-2, Trainer(plan(), prepared(), alone).network
    inside = hidden_matrices(network)
    hidden = [name for name, p in network.named_parameters() if id(p) in inside]
    muon, adamw = (moves(alone, optim=rule(lr=lr, weight_decay=0.0)) for rule in (Muon, AdamW))
    assert len(hidden) == 12
    for name, move in muon.items():
        if name in hidden:
            scale = lr * 0.2 * max(move.shape) ** 0.5
            values = torch.linalg.svdvals(move / scale)
            # The small directions of a first gradient are too small for five iterations.
            assert float(values[4]) > 0.6, name
            assert float(values.max()) < 1.3, name
            assert float(move.square().mean().sqrt()) < 0.25 * lr, name
        else:
            assert torch.equal(move, adamw[name]), name


def test_momentum_is_torchs():
    """Five steps of its Muon on the same gradients."""
    ours, theirs = TwoLayers(), TwoLayers()
    spec = Muon(lr=0.1, momentum=0.8, nesterov=False, weight_decay=0.3)
    own = spec.optimiser(ours, CPU)
    other = torch.optim.Muon([theirs.high.weight], 0.1, 0.3, 0.8, False, adjust_lr_fn="match_rms_adamw")
    rest = [theirs.low.weight, theirs.low.bias, theirs.high.bias]
    adamw = torch.optim.AdamW([{"params": rest[:1], "weight_decay": 0.3}, {"params": rest[1:], "weight_decay": 0.0}],
                              0.1, (0.9, 0.98), fused=True)  # fmt: skip
    for step in range(5):
        for one in (ours, theirs):
            one.zero_grad()
            x = torch.randn(7, 6, generator=torch.Generator().manual_seed(step))
            one.high(one.low(x).tanh()).square().sum().backward()
        own.step()
        other.step()
        adamw.step()
        if step == 2:  # as a checkpoint does
            state = copy.deepcopy(own.state_dict())
            own = spec.optimiser(ours, CPU)
            own.load_state_dict(state)
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, its)


@pytest.mark.parametrize("precision", [Bf16(), Fp16(), Bf16Pure(), Int8Weights(), Int8Full()])
def test_every_precision_proves_itself_learns_and_goes_on_to_the_bit(alone, tmp_path, precision):
    def fresh() -> Trainer:
        return Trainer(plan(precision=precision, optim=Muon(lr=1e-2), budget=Budget(steps=20)), prepared(), alone)

    _, reports = goes_on_to_the_bit(fresh, 12, tmp_path, prove)
    losses = [float(report.losses.totals["corpus/mlm"]) / report.counts["corpus/mlm"] for report in reports]
    assert sum(losses[-3:]) < sum(losses[:3]) - 0.1
