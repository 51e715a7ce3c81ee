"""Distillation in the trainer: a step by hand, however it is cut, any teacher for any student, resumed to the bit."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from distill_workers import CASES, found, weights
from resumed import goes_on_to_the_bit
from small import vocabulary
from small_tasks import small_task
from small_teachers import MODELS, taught, teacher
from taught import save_teacher
from torch.nn.functional import log_softmax

from lmctl.config.build import build
from lmctl.config.compose import Composer, conf_dir
from lmctl.config.schema import Budget
from lmctl.core.batch import Batch
from lmctl.distill.base import Distiller, TeacherOutput
from lmctl.distill.curriculum import Curriculum
from lmctl.distill.hidden import Hidden
from lmctl.distill.logits import Logits
from lmctl.distill.report import closed
from lmctl.mix.stream import Position
from lmctl.model.gpt2 import Gpt2
from lmctl.model.recurrent import RecurrentLM
from lmctl.parallel.processes import Processes
from lmctl.train.trainer import Trainer

OPTIONS = sorted(path.stem for path in (conf_dir() / "distill").glob("*.yaml") if path.stem != "none")
TASKS = (("mlm", "bert"), ("clm", "gpt2"), ("translate", "t5"), ("class", "bert"))
WRITING = ("on_policy", "sequence")
"""Options about texts that somebody writes."""


def option(name: str) -> Distiller:
    return build(Composer("train").load_option("distill", name), Distiller)


def looked(trainer: Trainer, batch: Batch) -> TeacherOutput:
    """What the teacher makes of a batch."""
    predictions = trainer.learner.objectives[batch.task].predict(trainer.network, batch)
    return trainer.learner.distillation.teacher.outputs(batch, predictions)


def test_a_step_is_adam_on_the_weighed_sum_of_all_terms(alone, teachers):
    """Against a loop by hand with whole logits, whole hidden states, and transformers' own forward passes."""
    from transformers import BertForMaskedLM

    place = teacher(teachers, "bert", "mlm")
    lesson = {"logits": Logits(weight=0.7, temperature=2.0), "hidden": Hidden(weight=0.2)}
    changes = {"lesson": lesson, "hard": 0.3, "budget": Budget(steps=3), "chunk_mb": 0.001}
    trainer = Trainer(*taught("mlm", place, micro=3, **changes), alone)
    by_hand = Trainer(*taught("mlm", place, **changes), alone)
    assert torch.equal(weights(trainer), weights(by_hand))
    list(trainer.steps())
    network, pupil = by_hand.network, by_hand.learner.distillation.feature_losses["hidden"]
    model, big = network.pretrained(), BertForMaskedLM.from_pretrained(place).eval()
    every = list(by_hand.learner.parameters())
    groups = [
        {"params": [p for p in every if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in every if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer, at = torch.optim.AdamW(groups, betas=(0.9, 0.98)), Position()
    for step in range(3):
        window = by_hand.stream.window(at, 0.0, None, 0, 1)
        (batch,), at = window.batches, window.after
        mask = batch.inputs.get("attention_mask", torch.ones_like(batch.inputs["input_ids"]))
        inputs = {"input_ids": batch.inputs["input_ids"], "attention_mask": mask, "output_hidden_states": True}
        with torch.no_grad():
            theirs = big(**inputs)
        ours = model(**inputs)
        positions, labels = batch.targets["mlm"].positions, batch.targets["mlm"].labels
        said, known = (out.logits.flatten(0, 1)[positions] for out in (ours, theirs))
        hard = F.cross_entropy(said, labels)
        soft = 4 * (F.softmax(known / 2, -1) * (log_softmax(known / 2, -1) - log_softmax(said / 2, -1))).sum(-1).mean()
        real, inner = mask.bool(), 0.0
        for t, s in ((2, 1), (3, 2)):
            projected = pupil.projections[f"layers_{t}_{s}"](ours.hidden_states[s][real])
            inner = inner + ((projected - theirs.hidden_states[t][real]) ** 2).mean() / 2
        (0.3 * hard + 0.7 * soft + 0.2 * inner).backward()
        torch.nn.utils.clip_grad_norm_(every, 1.0)
        progress = (step + 0.5) / 3
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (progress / 0.1 if progress < 0.1 else 1 - (progress - 0.1) / 0.9)
        optimizer.step()
        optimizer.zero_grad()
    assert (weights(trainer) - weights(by_hand)).norm() / weights(by_hand).norm() < 1e-5


@pytest.mark.parametrize("task", ["mlm", "mlm_nsp", "clm", "class", "classes", "number", "translate"])
def test_chunks_and_micro_batches_do_not_change_the_step(alone, teachers, task):
    model = {"clm": "gpt2", "translate": "marian"}.get(task, "bert")
    place = teacher(teachers, model, task, None if task in ("number",) else ["a", "b", "c"])
    whole = Trainer(*taught(task, place, budget=Budget(steps=3)), alone)
    before = weights(whole)
    reports = list(whole.steps())
    split = Trainer(*taught(task, place, budget=Budget(steps=3), chunk_mb=0.002, micro=3), alone)
    for one, other in zip(reports, split.steps(), strict=True):
        assert one.counts == other.counts
        for name in whole.terms:
            assert float(one.losses.totals[name]) == pytest.approx(float(other.losses.totals[name]), rel=1e-4, abs=1e-6)
    # Of the way that was gone: where a gradient is nearly nothing, Adam makes a step of rounding.
    assert (weights(whole) - weights(split)).norm() < 5e-3 * (weights(whole) - before).norm()
    names = {name.partition("/")[2] for name in whole.terms}
    pair = {"distill_logits_mlm", "distill_logits_nsp"}
    assert names - set(whole.learner.objectives) >= (pair if task == "mlm_nsp" else {"distill_logits"})


def test_the_student_begins_as_it_would_without_a_teacher(alone, teachers):
    own, text = small_task("mlm", 0.1)
    with_one = Trainer(*taught("mlm", teacher(teachers, "bert", "mlm"), dropout=0.1), alone)
    begins = torch.cat([p.flatten() for p in with_one.network.parameters()])
    without = torch.cat([p.flatten() for p in Trainer(own, text, alone).network.parameters()])
    assert torch.equal(begins, without)


def test_the_teacher_is_no_part_of_the_student(alone, teachers):
    place = teacher(teachers, "bert", "mlm")
    trainer = Trainer(*taught("mlm", place, lesson={"hidden": Hidden(), "logits": Logits()}), alone)
    plain = Trainer(*small_task("mlm"), alone)
    projections = sum(p.numel() for p in trainer.learner.distillation.parameters())
    assert projections == 2 * (48 * 32 + 48)
    count = sum(p.numel() for p in trainer.learner.parameters())
    assert count == sum(p.numel() for p in plain.learner.parameters()) + projections
    assert trainer.network.state_dict().keys() == plain.network.state_dict().keys()
    before = [p.clone() for p in trainer.learner.distillation.teacher.teachers[0].network.parameters()]
    list(trainer.steps())
    after = trainer.learner.distillation.teacher.teachers[0].network.parameters()
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


PAIRS = [
    ("mlm", "bert", "bert small"),
    ("mlm", "modernbert", "bert small"),
    ("mlm", "bert", "modernbert"),
    ("clm", "gpt2", "gpt2 small"),
    ("clm", "llama", "gpt2 small"),
    ("clm", "gpt2", "lstm"),
    ("clm_stream", "gpt2", "lstm"),
    ("clm_stream", "lstm", "lstm"),
    ("class", "bert", "bert small"),
    ("class", "bert", "bilstm"),
    ("class", "bilstm", "bert small"),
    ("class", "bert", "gpt2 small"),
    ("class", "gpt2", "bert small"),
    ("translate", "marian", "marian small"),
    ("translate", "marian", "t5 small"),
    ("translate", "t5", "rnn_mt"),
    ("translate", "rnn_mt", "marian small"),
]


@pytest.mark.parametrize(("task", "big", "small"), PAIRS, ids=[" ".join(pair) for pair in PAIRS])
def test_any_teacher_for_any_student(alone, teachers, task, big, small):
    place = teacher(teachers, big, task, ["a", "b", "c"] if task == "class" else None)
    changes = {"model": MODELS[small], "budget": Budget(steps=2), "micro": None if task == "clm_stream" else 4}
    trainer = Trainer(*taught(task, place, hard=0.0, **changes), alone)
    before = weights(trainer)
    reports = list(trainer.steps())
    (name,) = [name for name in trainer.terms if "distill" in name]
    assert all(
        math.isfinite(float(report.losses.totals[name])) and float(report.losses.totals[name]) > 0 for report in reports
    )
    assert not torch.equal(weights(trainer), before)


@pytest.mark.parametrize(
    ("task", "big", "name"),
    [(task, big, name) for task, big in TASKS for name in OPTIONS if big != "bert" or name not in WRITING],
)
def test_every_option_trains_and_resumes_to_the_bit(alone, teachers, task, big, name, tmp_path):
    place = teacher(teachers, big, task, ["a", "b", "c"] if task == "class" else None)
    student = {"bert": "bert small", "gpt2": "gpt2 small", "t5": "t5 small"}[big]

    def fresh() -> Trainer:
        own, text = taught(task, place, dropout=0.1, model=MODELS[student], budget=Budget(steps=3), micro=5)
        return Trainer(replace(own, distill=option(name)), text, alone)

    goes_on_to_the_bit(fresh, 1, tmp_path)


def test_two_processes_give_the_steps_of_one(alone, both):
    one, two = found(alone, both[0]["folder"]), both[0]["lessons"]
    for case in CASES:
        assert (one[case]["weights"] - two[case]["weights"]).norm() < 5e-5 * one[case]["weights"].norm(), case
        for ours, theirs in zip(one[case]["terms"], two[case]["terms"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6), case


def test_several_teachers_are_averaged_as_logits(alone, teachers):
    one, other = teacher(teachers, "bert", "mlm"), teacher(teachers, "bert small", "mlm")
    own, text = taught("mlm", one)
    both = Trainer(replace(own, teacher=(one, other)), text, alone)
    batch = both.stream.first("corpus", 4)
    view = looked(both, batch)
    parts = []
    for place in (one, other):
        single = Trainer(replace(own, teacher=(place,)), text, alone)
        parts.append(looked(single, batch).answers("mlm", "mlm", slice(2, 5)).logits)
    torch.testing.assert_close(view.answers("mlm", "mlm", slice(2, 5)).logits, (parts[0] + parts[1]) / 2)


def test_terms_take_their_turns_over_the_budget(alone, teachers):
    lesson = {
        "logits": Logits(weight=[[0.0, 0.0], [0.5, 1.0]], between="step"),
        "hidden": Hidden(weight=[[0, 1], [0.5, 0]]),
    }
    trainer = Trainer(*taught("mlm", teacher(teachers, "bert", "mlm"), lesson, hard=0.0, budget=Budget(steps=2)), alone)
    heads = trainer.network.pretrained().cls.predictions.transform.dense.weight
    steps, before = trainer.steps(), heads.clone()
    next(steps)
    moved = (heads - before).norm() / before.norm()
    next(steps)
    assert moved < 1e-3 < (heads - before).norm() / before.norm()


def test_gap_closed():
    assert closed(False, 2.5, 3.0, 2.0) == pytest.approx(0.5)
    assert closed(True, 0.8, 0.7, 0.9) == pytest.approx(0.5)
    assert closed(True, 0.6, 0.7, 0.9) == pytest.approx(-0.5)
    assert closed(True, 0.8, 0.7, 0.6) is None


@pytest.mark.parametrize(
    "spec", [RecurrentLM(1, 32, dropout=0.5), Gpt2(2, 32, 2, 64, dropout=0.5)], ids=["lstm", "gpt2"]
)
def test_a_teacher_drops_nothing(tmp_path, spec):
    """What it says of a batch is the same each time, while its student learns with dropout."""
    place = save_teacher(tmp_path / "teacher", spec, {"lm": vocabulary().size})
    rule = Curriculum({"logits": Logits()})
    own, text = small_task("clm", dropout=0.5, teacher=(str(place),), distill=rule)
    trainer = Trainer(own, text, Processes(on_cpu=True))
    network = trainer.learner.distillation.teacher.teachers[0].network
    next(trainer.steps())
    assert trainer.network.training
    assert not any(module.training for module in network.modules())
    batch = trainer.stream.first("corpus", 4)
    looks = [looked(trainer, batch).answers("lm", "lm", slice(0, 20)).logits for _ in range(2)]
    assert torch.equal(*looks)
    network.train()
    other = looked(trainer, batch).answers("lm", "lm", slice(0, 20)).logits
    assert not torch.equal(looks[0], other)  # it could have


def test_projections_of_older_checkpoints_are_loaded_by_their_older_names(alone, teachers):
    place = teacher(teachers, "bert", "mlm")
    two = [Trainer(*taught("mlm", place, lesson={"hidden": Hidden()}, seed=seed), alone) for seed in (1, 2)]
    one, other = (trainer.learner.distillation for trainer in two)
    older = {name.replace("feature_losses.", "pupils."): value for name, value in one.state_dict().items()}
    assert len(older) == 4
    other.load_state_dict(older)
    assert all(torch.equal(value, one.state_dict()[name]) for name, value in other.state_dict().items())
