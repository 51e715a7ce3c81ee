"""Adversaries against loops written by hand on plain transformers, and what must hold of every one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from attacked import Recorded, micro_batch, trainer_of
from small import tokenizer, vocabulary, weights
from small_tasks import text_of
from torch import Tensor
from torch.nn import functional as F

from lmctl.adversary.base import View
from lmctl.adversary.fgm import FastGradient
from lmctl.adversary.freelb import FreeLB
from lmctl.adversary.none import Clean
from lmctl.adversary.pgd import ProjectedGradient
from lmctl.adversary.smart import Smart
from lmctl.augment.word_dropout import WordDropout
from lmctl.core.batch import Batch
from lmctl.core.counter_rng import CounterRng
from lmctl.mix.stream import Position
from lmctl.objective.base import Material
from lmctl.objective.clm import CausalLM
from lmctl.optim.sgd import Sgd
from lmctl.parallel.processes import Processes
from lmctl.train.rows import real_positions
from lmctl.train.step import MicroBatch
from lmctl.train.trainer import Trainer

SHIFTS = pytest.mark.parametrize(
    "rule", [kind(0.3) for kind in (FastGradient, ProjectedGradient, FreeLB, Smart)], ids=str
)
Loss = Callable[[Tensor], Tensor]
"""The loss of a micro-batch by a shift [R, L, H] of its embeddings."""


def near(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> bool:
    return bool((one - other).norm() <= tolerance * other.norm())


# The algorithms of the papers, row by row.


def unit(gradient: Tensor) -> Tensor:
    return torch.stack([row / row.norm() for row in gradient])


def clipped(shift: Tensor, radius: float) -> Tensor:
    return torch.stack([row * min(1.0, radius / float(row.norm())) if row.norm() > 0 else row for row in shift])


def fgm(rule: FastGradient, loss: Loss, zero: Tensor, start: Tensor) -> None:
    delta = zero.clone().requires_grad_()
    loss(delta).backward()
    loss(rule.epsilon * unit(delta.grad)).mul(rule.weight).backward()


def pgd(rule: ProjectedGradient, loss: Loss, zero: Tensor, start: Tensor) -> None:
    loss(zero).backward()
    delta = zero.clone()
    for _ in range(rule.steps):
        delta.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(delta), delta)
        delta = clipped(delta.detach() + rule.step_size * unit(gradient), rule.epsilon)
    loss(delta).mul(rule.weight).backward()


def freelb(rule: FreeLB, loss: Loss, zero: Tensor, start: Tensor) -> None:
    delta = clipped(rule.start * start, rule.epsilon)
    for _ in range(rule.steps):
        delta = delta.detach().requires_grad_()
        loss(delta).div(rule.steps).backward()
        delta = clipped(delta.detach() + rule.step_size * unit(delta.grad), rule.epsilon)


def plain_loss(model: Any, batch: Batch) -> Loss:
    """The mean losses of a whole window, by transformers' own forward pass from `inputs_embeds`."""
    inputs, targets = batch.inputs, batch.targets
    mask = inputs["attention_mask"].long() if "attention_mask" in inputs else None

    def loss(shift: Tensor) -> Tensor:
        embedded = model.get_input_embeddings()(inputs["input_ids"]) + shift
        output = model(inputs_embeds=embedded, attention_mask=mask, token_type_ids=inputs.get("token_type_ids"))
        if "label" in targets:
            return F.cross_entropy(output.logits, targets["label"].labels)
        pieces = output.prediction_logits.flatten(0, 1)[targets["mlm"].positions]
        pairs = F.cross_entropy(output.seq_relationship_logits, targets["nsp"].labels)
        return F.cross_entropy(pieces, targets["mlm"].labels) + pairs

    return loss


@pytest.mark.parametrize("task", ["mlm_nsp", "class"])
@pytest.mark.parametrize(
    ("rule", "by_hand"),
    [
        (FastGradient(0.7, weight=0.5), fgm),
        (ProjectedGradient(0.6, steps=3, step_size=0.25), pgd),
        (FreeLB(0.5, steps=3, step_size=0.3, start=0.4), freelb),
    ],
    ids=["fgm", "pgd", "freelb"],
)
def test_steps_are_those_of_the_paper(alone, task, rule, by_hand):
    """Two steps of gradient descent on plain transformers; the batch has padding."""
    changes = {"optim": Sgd(lr=0.5, momentum=0.0, weight_decay=0.0), "clip_norm": None, "micro": 3}
    trainer = trainer_of(alone, task, adversary=rule, **changes)
    before = weights(trainer)
    lrs = [report.lr for report in trainer.steps()]
    reference = trainer_of(alone, task, **changes)
    model, at, padded = reference.network.model, Position(), False
    for window_number, lr in enumerate(lrs):
        window = reference.stream.window(at, 0.0, None, 0, 1)
        (batch,), at = window.batches, window.after
        padded |= "attention_mask" in batch.inputs
        zero = torch.zeros(*batch.inputs["input_ids"].shape, 32)
        start = reference.step.perturbations.random_shift(batch, window_number)
        by_hand(rule, plain_loss(model, batch), zero, start)
        with torch.no_grad():
            for parameter in reference.network.parameters():
                if parameter.grad is not None:
                    parameter -= lr * parameter.grad
                    parameter.grad = None
    assert padded
    change = weights(reference) - before
    assert near(weights(trainer) - before, change)
    assert not near(weights(trained(alone, task, **changes)) - before, change, 0.1)


def trained(alone: Processes, task: str, dropout: float = 0.0, **changes: Any) -> Trainer:
    trainer = trainer_of(alone, task, dropout, **changes)
    for _ in trainer.steps():
        pass
    return trainer


@pytest.mark.parametrize(
    "rule", [FreeLB(steps=1, start=0.0), FreeLB(epsilon=1e-12, steps=1), FreeLB(epsilon=1e-12)], ids=str
)
def test_freelb_without_room_is_plain_training(alone, rule):
    assert near(weights(trained(alone, "class", 0.1, adversary=rule)), weights(trained(alone, "class", 0.1)), 1e-6)


def real(micro: MicroBatch) -> Tensor:
    """bool [R, L]: what is not padding."""
    return micro.step.perturbations.real(micro.origin)


@SHIFTS
@pytest.mark.parametrize("task", ["mlm_nsp", "class", "number", "translate", "t5", "clm"])
def test_shifts_stay_in_the_ball_and_off_the_padding(alone, task, rule):
    trainer = trainer_of(alone, task)
    seen = Recorded(micro_batch(trainer))
    rule.forward_backward(seen)
    shift, text = seen.shifts[-1], real(seen.micro)
    assert shift.flatten(1).norm(dim=1).tolist() == pytest.approx([rule.epsilon] * 8, rel=1e-5)
    assert (shift[~text] == 0).all()
    assert text.all() == (task == "clm")


def test_padding_is_never_shifted(alone):
    """Whatever an adversary asks for."""
    micro = micro_batch(trainer_of(alone, "class"))
    text = real(micro)
    shift = torch.randn(*text.shape, 32, requires_grad=True)
    gradient = micro.gradient(shift, View(shift))
    assert (gradient[~text] == 0).all()
    assert (gradient[text].norm(dim=-1) > 0).all()
    start = micro.random_shift()
    assert (start[~text] == 0).all()
    lengths = start.flatten(1).norm(dim=1)
    assert ((lengths > 0.4) & (lengths <= 1)).all()


def test_documents_that_share_a_row_have_padding_too():
    store = text_of("clm").corpora["corpus"].train
    rewrite = WordDropout(0.4).rewriter(tokenizer(), vocabulary())
    examples = CausalLM().examples(Material("corpus", store, vocabulary(), "decoder", 32, 8, rewrite))
    batch = examples.collate(np.arange(8), np.zeros(8, dtype=np.int64), CounterRng(0, "rows"))
    assert "documents" in batch.inputs
    assert real_positions(batch).sum() == batch.tokens < batch.inputs["input_ids"].numel()


@SHIFTS
@pytest.mark.parametrize("task", ["mlm_nsp", "translate"])
def test_micro_batches_do_not_change_the_step(alone, task, rule):
    """Neither do random starts, which come from a counter."""
    whole = trained(alone, task, adversary=rule)
    assert near(weights(trained(alone, task, adversary=rule, micro=3)), weights(whole))


def test_carried_states_are_those_of_rows_as_they_are(alone):
    """After any number of passes an LSTM goes on from where the first one ended, and all began where it began."""
    found = []
    for rule in (Clean(), ProjectedGradient()):
        trainer = trainer_of(alone, "clm_stream")
        for window in range(2):
            loss = rule.forward_backward(micro_batch(trainer, window=window)).losses["lm"]
        found.append((loss.item(), trainer.network.carried()))
    (loss, states), (other_loss, other_states) = found
    assert loss == other_loss
    assert all(torch.equal(states[name], other_states[name]) for name in states)
