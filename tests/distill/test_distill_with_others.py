"""Distillation beside adversaries, precisions, recomputed activations and other tasks."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from distill_workers import weights
from safetensors.torch import save_file
from small import plan, tokenizer
from small_tasks import two_tasks
from small_teachers import MODELS, taught, teacher

from lmctl.adversary.fgm import FastGradient
from lmctl.adversary.freelb import FreeLB
from lmctl.adversary.noise import Noise
from lmctl.adversary.rdrop import RDrop
from lmctl.adversary.smart import Smart
from lmctl.augment.word_dropout import WordDropout
from lmctl.config.build import build
from lmctl.config.compose import Composer
from lmctl.config.schema import Budget
from lmctl.distill.attention import Attention
from lmctl.distill.curriculum import Curriculum
from lmctl.distill.hidden import Hidden
from lmctl.distill.logits import Logits
from lmctl.distill.minilm import MiniLM
from lmctl.optim.adamw import AdamW
from lmctl.precision.base import Precision
from lmctl.precision.fp16 import Fp16
from lmctl.train.trainer import Trainer

ADVERSARIES = [FastGradient(), FreeLB(), Smart(), RDrop(), Noise(WordDropout(0.3))]


@pytest.mark.parametrize("rule", ADVERSARIES, ids=lambda rule: type(rule).__name__)
def test_adversaries_drive_taught_passes(alone, teachers, rule):
    place = teacher(teachers, "bert", "mlm")
    lesson = {"logits": Logits(), "hidden": Hidden()}
    changes = {"dropout": 0.1, "adversary": rule, "lesson": lesson, "budget": Budget(steps=2), "micro": 4}
    trainer = Trainer(*taught("mlm", place, chunk_mb=0.002, **changes), alone)
    reports = list(trainer.steps())
    assert all(math.isfinite(float(value)) for report in reports for value in report.losses.totals.values())
    assert {"corpus/mlm", "corpus/distill_logits", "corpus/distill_hidden"} == set(reports[0].losses.totals)
    assert reports[0].adversarial.totals


def test_a_teacher_sees_rows_without_their_shift_and_once_for_all_passes(alone, teachers):
    trainer = Trainer(*taught("mlm", teacher(teachers, "bert", "mlm"), adversary=FreeLB()), alone)
    live, looks = trainer.learner.distillation.teacher, []
    original = live.outputs
    live.outputs = lambda *seen: looks.append((seen[0], original(*seen))) or looks[-1][1]  # type: ignore[method-assign]
    next(trainer.steps())
    ((batch, look),) = looks
    with torch.no_grad():
        plain = live.teachers[0].network.encode(batch.inputs, batch.targets["mlm"].positions)
    torch.testing.assert_close(look.hidden["mlm"][0], plain)


@pytest.mark.parametrize("name", ["bf16", "fp16", "bf16_pure", "int8", "int8_weights"])
def test_precisions_of_the_student(alone, teachers, name):
    low = build(Composer("train").load_option("precision", name), Precision)
    place = teacher(teachers, "bert", "mlm")
    changes = {
        "budget": Budget(steps=2),
        "micro": 4,
        "precision": low,
        "lesson": {"logits": Logits(), "minilm": MiniLM()},
    }
    trainer = Trainer(*taught("mlm", place, chunk_mb=0.002, **changes), alone)
    plain = Trainer(*taught("mlm", place, **changes | {"precision": plan().precision}), alone)
    for one, other in zip(trainer.steps(), plain.steps(), strict=True):
        for term in trainer.terms:
            assert float(one.losses.totals[term]) == pytest.approx(float(other.losses.totals[term]), rel=0.08), term


def test_fp16_scales_what_was_computed_in_chunks(alone, teachers):
    """Gradients of chunks are taken before the loss scale is known, and overflow like all others."""
    changes = {"precision": Fp16(initial_scale=2.0**30), "budget": Budget(steps=1), "chunk_mb": 0.002}
    trainer = Trainer(*taught("mlm", teacher(teachers, "bert", "mlm"), **changes), alone)
    reports = list(trainer.steps())
    assert trainer.state.skipped > 0
    assert trainer.state.step == 1
    resting = {"optim": AdamW(lr=1e-9), "budget": Budget(steps=len(reports))}
    *_, expected = Trainer(*taught("mlm", teacher(teachers, "bert", "mlm"), **resting), alone).steps()
    assert float(reports[-1].grad_norm) == pytest.approx(float(expected.grad_norm), rel=0.01)


@pytest.mark.parametrize("name", ["bf16", "int8_weights", "nf4_lora"])
def test_a_teacher_has_a_precision_of_its_own(alone, teachers, name):
    low = build(Composer("train").load_option("precision", name), Precision)
    place = teacher(teachers, "bert", "mlm")
    trainer = Trainer(*taught("mlm", place, rule={"teacher_precision": low}, budget=Budget(steps=1)), alone)
    plain = Trainer(*taught("mlm", place, budget=Budget(steps=1)), alone)
    (one,), (other,) = trainer.steps(), plain.steps()
    assert float(one.losses.totals["corpus/mlm"]) == float(other.losses.totals["corpus/mlm"])
    near = float(other.losses.totals["corpus/distill_logits"])
    assert float(one.losses.totals["corpus/distill_logits"]) != near
    assert float(one.losses.totals["corpus/distill_logits"]) == pytest.approx(near, rel=0.2)


def test_gradient_checkpointing_gives_the_same_run(alone, teachers):
    place, lesson = teacher(teachers, "bert", "mlm"), {"logits": Logits(), "attention": Attention(), "hidden": Hidden()}
    changes = {"model": MODELS["bert small"], "budget": Budget(steps=2)}
    plain = Trainer(*taught("mlm", place, lesson, **changes), alone)
    list(plain.steps())
    again = Trainer(*taught("mlm", place, lesson, gradient_checkpointing=True, **changes), alone)
    list(again.steps())
    torch.testing.assert_close(weights(again), weights(plain))


def test_several_tasks_in_a_learned_balance(alone, tmp_path):
    """A head of its own for each; the lesson's terms share the factor of the loss that they go with, so that chunks are
    weighed as was said, and `hidden`, which goes with none, keeps its own."""
    own, text = two_tasks(micro=4, budget=Budget(steps=2))
    network = MODELS["bert"].load(text.vocabulary, {"mlm": text.vocabulary.size, "topics": 3})
    network.pretrained().save_pretrained(tmp_path)
    save_file(network.extra_heads(), tmp_path / "extra_heads.safetensors")
    tokenizer().save_pretrained(tmp_path)
    note = {"objective": "Classify", "reads": "labelled", "label_kind": "class", "labels": ["a", "b", "c"]}
    (tmp_path / "lmctl_tasks.json").write_text(json.dumps({"topics": note}))
    rule = Curriculum({"logits": Logits(), "hidden": Hidden()}, hard=0.5, chunk_mb=0.002)
    trainer = Trainer(replace(own, distill=rule, teacher=(str(tmp_path),)), text, alone)
    reports = list(trainer.steps())
    assert set(reports[0].losses.totals) == {
        *("corpus/mlm", "corpus/distill_logits", "corpus/distill_hidden"),
        *("topics/label", "topics/distill_logits", "topics/distill_hidden"),
    }
    assert len(trainer.learner.balance.log_variance) == 2
    assert all(math.isfinite(float(value)) for report in reports for value in report.losses.totals.values())
