"""Adversaries that compare answers: their divergences by slow formulas, and noisy copies whose targets are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from attacked import Recorded, micro_batch, trainer_of
from small import tokenizer, vocabulary
from small_tasks import small_task, two_tasks
from torch import Tensor

from lmctl.adversary.base import View
from lmctl.adversary.noise import Noise
from lmctl.adversary.rdrop import RDrop
from lmctl.adversary.smart import Smart
from lmctl.augment.char_noise import CharNoise
from lmctl.augment.none import Unchanged
from lmctl.augment.token_noise import TokenNoise
from lmctl.augment.word_dropout import WordDropout
from lmctl.core.batch import Batch, Targets
from lmctl.core.errors import ConfigError
from lmctl.model.bert import Bert
from lmctl.model.pretrained import Pretrained
from lmctl.parallel.processes import Processes
from lmctl.train.learner import Share
from lmctl.train.noisy_rows import Rewriting
from lmctl.train.rows import real_positions
from lmctl.train.step import MicroBatch
from lmctl.train.trainer import Trainer

V = vocabulary()


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Of one distribution from another, given as probabilities."""
    return torch.stack([a * torch.log(a / b) for a, b in zip(p, q, strict=True)]).sum()


def slow(kind: str, one: Tensor, other: Tensor) -> Tensor:
    """Both directions' mean, target by target and class by class."""
    total = torch.zeros(())
    for x, y in zip(one, other, strict=True):
        if kind == "number":
            total = total + (x[0] - y[0]) ** 2
        elif kind == "class":
            p, q = x.softmax(0), y.softmax(0)
            total = total + (kl(p, q) + kl(q, p)) / 2
        else:
            for a, b in zip(torch.sigmoid(x), torch.sigmoid(y), strict=True):
                p, q = torch.stack([a, 1 - a]), torch.stack([b, 1 - b])
                total = total + (kl(p, q) + kl(q, p)) / 2
    return total


KINDS = pytest.mark.parametrize("kind", ["class", "classes", "number"])


def answers(trainer: Trainer, batch: Batch, shift: Tensor | None = None) -> Tensor:
    """Logits [R, C] of one pass, by plain transformers on embeddings where they are shifted."""
    network, mask = trainer.network, batch.inputs["attention_mask"]
    if shift is None:
        return network.head("corpus", network.encode(batch.inputs, None))
    embedded = network.model.get_input_embeddings()(batch.inputs["input_ids"]) + shift
    return network.model(inputs_embeds=embedded, attention_mask=mask.long()).logits


def loss_of(trainer: Trainer, logits: Tensor, batch: Batch) -> Tensor:
    return trainer.plan.mix.tasks["corpus"].objective.loss("label", logits, batch.targets["label"].labels)


def gradients(trainer: Trainer) -> Tensor:
    """Of every parameter, which then forget them."""
    parameters = list(trainer.learner.parameters())
    flat = torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in parameters])
    trainer.learner.zero_grad()
    return flat


def same(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> bool:
    return bool((found - expected).norm() <= tolerance * expected.norm())


@KINDS
def test_rdrop_is_the_mean_of_two_passes_and_their_divergence(alone, kind):
    trainer = trainer_of(alone, kind, 0.3)
    micro = micro_batch(trainer)
    torch.manual_seed(5)
    outcome, found = RDrop(weight=0.7).forward_backward(micro), gradients(trainer)
    torch.manual_seed(5)
    hidden = [trainer.network.encode(micro.batch.inputs, None) for _ in range(2)]
    one, other = (trainer.network.head("corpus", states) for states in hidden)
    assert not torch.equal(one, other)
    mean = (loss_of(trainer, one, micro.batch) + loss_of(trainer, other, micro.batch)) / 2
    apart = slow(kind, one, other)
    torch.testing.assert_close(outcome.losses["label"], mean)
    torch.testing.assert_close(outcome.adversarial["label"], apart, rtol=1e-4, atol=1e-6)
    ((mean + 0.7 * apart) / 8).backward()
    assert same(found, gradients(trainer))


@KINDS
def test_smart_climbs_the_divergence_and_adds_what_it_finds(alone, kind):
    trainer, rule = trainer_of(alone, kind), Smart(0.8, steps=2, step_size=0.5, start=0.2, weight=3.0)
    seen = Recorded(micro_batch(trainer))
    micro, batch = seen.micro, seen.micro.batch
    outcome, found = rule.forward_backward(seen), gradients(trainer)
    reached = seen.shifts[-1]
    clean = answers(trainer, batch)
    assert same(answers(trainer, batch, torch.zeros_like(reached)), clean, 1e-5)
    shift = 0.2 * micro.random_shift()
    for _ in range(2):
        shift = shift.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(slow(kind, clean.detach(), answers(trainer, batch, shift)), shift)
        rows = [row + 0.5 * g / g.norm() for row, g in zip(shift.detach(), gradient, strict=True)]
        shift = torch.stack([row * min(1.0, 0.8 / float(row.norm())) for row in rows])
    assert same(reached, shift, 1e-2)
    apart = slow(kind, clean, answers(trainer, batch, reached))
    torch.testing.assert_close(outcome.adversarial["label"], apart, rtol=1e-4, atol=1e-6)
    anywhere = slow(kind, clean, answers(trainer, batch, 0.8 * micro.random_shift() / 0.58))
    assert apart.item() > 2 * anywhere.item()
    ((loss_of(trainer, clean, batch) + 3.0 * apart) / 8).backward()
    assert same(found, gradients(trainer), 1e-3)


def test_every_term_has_its_own_divergence(alone):
    """Masked words and next sentences: each over its own targets, from the logits of its own head."""
    trainer = trainer_of(alone, "mlm_nsp", 0.2)
    micro = micro_batch(trainer)
    torch.manual_seed(5)
    report = micro.forward_backward(View(), View(fresh=True), agree=1.0, last=True)
    torch.manual_seed(5)
    one, other = (trainer.learner.logits(micro.batch) for _ in range(2))
    shapes = {name: tuple(logits.shape) for name, logits in one.items()}
    assert shapes == {"mlm": (len(micro.batch.targets["mlm"].labels), V.size), "nsp": (8, 2)}
    for name in shapes:
        expected = slow("class", one[name], other[name])
        torch.testing.assert_close(report.disagreement[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("own", [True, False], ids=["the model's head", "a head of ours"])
def test_dropout_is_the_same_in_every_view_that_is_not_fresh(alone, own):
    """In the network and in its heads, which answer later."""
    plan, text = small_task("class", 0.3) if own else two_tasks(0.3)
    trainer = Trainer(plan, text, alone)
    batch = trainer.stream.first("corpus" if own else "topics", 8)
    for fresh in (False, True):
        micro = MicroBatch(trainer.step, batch, Share({f"{batch.task}/label": 8.0}), 0, last=True)
        views = View(), View(micro.zeros(), weight=0.0, fresh=fresh)
        apart = micro.forward_backward(*views, agree=1.0, last=True).disagreement["label"].item()
        assert (apart > 1e-5) == fresh
        assert fresh or apart == 0


def test_rdrop_needs_dropout():
    for task in ("class", "clm", "translate", "clm_stream"):
        with pytest.raises(ConfigError, match=r"RDrop needs dropout, and .* as configured drops nothing out"):
            small_task(task, adversary=RDrop())
        small_task(task, 0.1, adversary=RDrop())
    assert not Bert(2, 32, 2, 64, dropout=0.0).drops_nothing  # its attention does
    assert not Pretrained("runs/x").drops_nothing  # nobody knows yet
    assert Pretrained("runs/x", dropout=0.0).drops_nothing


def test_a_loaded_network_without_dropout_is_found_out(alone, tmp_path):
    trainer_of(alone, "mlm").network.pretrained().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    changes: dict[str, Any] = {"adversary": RDrop(), "init_from": str(tmp_path)}
    with pytest.raises(ConfigError, match="RDrop needs dropout"):
        trainer_of(alone, "mlm", model=Pretrained(str(tmp_path)), **changes)
    trainer_of(alone, "mlm", model=Pretrained(str(tmp_path), dropout=0.1), **changes)


NOISE = Noise(CharNoise(0.3, 0.1), weight=0.5, consistency=2.0)


def copy_of(micro: MicroBatch, rule: Noise = NOISE) -> Batch:
    return micro.step.perturbations.rewritten(micro.origin, rule.augment, micro.window)


def noisy(alone: Processes, task: str, rule: Noise = NOISE) -> tuple[Batch, Batch]:
    """Rows of a window and their noisy copy."""
    micro = micro_batch(trainer_of(alone, task, adversary=rule))
    return micro.batch, copy_of(micro, rule)


def real(batch: Batch) -> Tensor:
    return real_positions(batch)


def lines(batch: Batch) -> list[list[int]]:
    """The pieces of each row."""
    return [row[text].tolist() for row, text in zip(batch.inputs["input_ids"], real(batch), strict=True)]


@pytest.mark.parametrize("task", ["class", "translate"])
def test_texts_that_are_asked_about_as_a_whole_are_rewritten_anywhere(alone, task):
    clean, copy = noisy(alone, task, Noise(WordDropout(0.3)))
    pairs = list(zip(lines(clean), lines(copy), strict=True))
    assert sum(row != other for row, other in pairs) >= 6
    assert {len(row) - len(other) for row, other in pairs} != {0}
    for row, other in pairs:
        assert (row[0] == V.cls, V.sep) == (other[0] == V.cls, other[-1])
        assert row.count(V.sep) == other.count(V.sep)
    for name, target in clean.targets.items():
        assert torch.equal(copy.targets[name].positions, target.positions)
    for name in ("decoder_input_ids", "decoder_attention_mask"):
        assert copy.inputs.get(name) is clean.inputs.get(name)


@pytest.mark.parametrize("task", ["mlm", "mlm_nsp"])
@pytest.mark.parametrize("augment", [CharNoise(0.3, 0.1), WordDropout(0.4), TokenNoise()], ids=str)
def test_masked_words_stay_and_are_found_again(alone, task, augment):
    clean, copy = noisy(alone, task, Noise(augment))
    assert lines(clean) != lines(copy)
    assert real(copy).shape[1] <= 32
    ids, others = (batch.inputs["input_ids"].flatten() for batch in (clean, copy))
    segments = [batch.inputs.get("token_type_ids") for batch in (clean, copy)]
    for name, target in clean.targets.items():
        moved, before = copy.targets[name].positions, target.positions
        assert torch.equal(copy.targets[name].labels, target.labels)
        assert torch.equal(moved // real(copy).shape[1], before // real(clean).shape[1])
        assert torch.equal(others[moved], ids[before])
        assert real(copy).flatten()[moved].all()
        if segments[0] is not None:
            assert torch.equal(segments[1].flatten()[moved], segments[0].flatten()[before])
    for row, other in zip(lines(clean), lines(copy), strict=True):
        assert [piece for piece in row if piece in (V.mask, V.sep)] == [p for p in other if p in (V.mask, V.sep)]


@pytest.mark.parametrize("task", ["clm", "clm_stream"])
def test_language_models_keep_every_place(alone, task):
    clean, copy = noisy(alone, task)
    ids, others = clean.inputs["input_ids"], copy.inputs["input_ids"]
    assert ids.shape == others.shape
    assert 0.05 < float((ids != others).float().mean()) < 0.8
    assert torch.equal(others == V.sep, ids == V.sep)
    assert all(copy.inputs[name] is value for name, value in clean.inputs.items() if name != "input_ids")


def test_noise_depends_on_the_row_and_the_step_alone(alone):
    trainer = trainer_of(alone, "class", adversary=NOISE)
    micro, part = micro_batch(trainer), micro_batch(trainer, slice(3, 6))
    assert lines(copy_of(micro))[3:6] == lines(copy_of(part))
    later = trainer.step.perturbations.rewritten(micro.origin, NOISE.augment, 7)
    assert lines(later) != lines(copy_of(micro))


def test_noise_counts_the_copy_and_its_divergence(alone):
    trainer = trainer_of(alone, "class", adversary=NOISE)
    micro = micro_batch(trainer)
    copy, outcome, found = copy_of(micro, NOISE), NOISE.forward_backward(micro), gradients(trainer)
    clean, other = answers(trainer, micro.batch), answers(trainer, copy)
    own, theirs = loss_of(trainer, clean, micro.batch), loss_of(trainer, other, micro.batch)
    torch.testing.assert_close(outcome.adversarial["label"], theirs)
    ((own + 0.5 * (theirs + 2.0 * slow("class", clean, other))) / 8).backward()
    assert same(found, gradients(trainer))


def test_noise_that_changes_nothing_is_refused(alone):
    with pytest.raises(ConfigError, match=r"adversary\.augment: Unchanged changes no text"):
        trainer_of(alone, "class", adversary=Noise(Unchanged()))


def test_what_is_asked_about_keeps_its_whole_word():
    rewriting = Rewriting(CharNoise(1.0, 0.0).rewriter(tokenizer(), V), V, 32, whole_rows=False, causal=False)
    ids = np.array([[V.cls, 6, 66, 67, 7, V.sep, 8]])
    targets = {"mlm": Targets(torch.tensor([2]), torch.tensor([9]))}
    batch = Batch("corpus", {"input_ids": torch.from_numpy(ids)}, targets, 7)
    copy = rewriting(batch, torch.ones(1, 7, dtype=torch.bool), [np.random.default_rng(0)])
    new = copy.inputs["input_ids"][0].tolist()
    assert new[:4] == [V.cls, 6, 66, 67]
    assert new[-1] != 8
    assert copy.targets["mlm"].positions.tolist() == [2]
