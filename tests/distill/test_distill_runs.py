"""Distillation in the trainer: a step by hand, however it is cut, any teacher for any student, resumed to the bit."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from command import HELPERS, ROOT, environment
from distill_workers import CASES, runner_of, trained, weights
from safetensors.torch import save_file
from small import plan, tokenizer, vocabulary
from small_tasks import small_task, two_tasks
from small_teachers import MODELS, taught, teacher
from taught import save_teacher
from torch.nn.functional import log_softmax

from lmctl.adversary.fgm import FastGradient
from lmctl.adversary.freelb import FreeLB
from lmctl.adversary.noise import Noise
from lmctl.adversary.rdrop import RDrop
from lmctl.adversary.smart import Smart
from lmctl.augment.word_dropout import WordDropout
from lmctl.config.build import build
from lmctl.config.compose import Composer, conf_dir
from lmctl.config.schema import Budget
from lmctl.core.batch import Batch
from lmctl.core.errors import ConfigError
from lmctl.distill.attention import Attention
from lmctl.distill.base import Distiller, TeacherOutput
from lmctl.distill.curriculum import Curriculum
from lmctl.distill.hidden import Hidden
from lmctl.distill.logits import Logits
from lmctl.distill.minilm import MiniLM
from lmctl.distill.report import closed
from lmctl.mix.stream import Position
from lmctl.model.gpt2 import Gpt2
from lmctl.model.recurrent import RecurrentLM
from lmctl.objective.mlm import MaskedLM
from lmctl.parallel.processes import Processes
from lmctl.precision.base import Precision
from lmctl.precision.fp16 import Fp16
from lmctl.train.trainer import Trainer

OPTIONS = sorted(path.stem for path in (conf_dir() / "distill").glob("*.yaml") if path.stem != "none")
TASKS = (("mlm", "bert"), ("clm", "gpt2"), ("translate", "t5"), ("class", "bert"))
WRITING = ("on_policy", "sequence")
"""Options about texts that somebody writes."""


@pytest.fixture(scope="module")
def alone() -> Processes:
    return Processes(on_cpu=True)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("teachers")


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
    runner = Trainer(*taught("mlm", place, micro=3, **changes), alone)
    by_hand = Trainer(*taught("mlm", place, **changes), alone)
    assert torch.equal(weights(runner), weights(by_hand))
    list(runner.steps())
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
    assert (weights(runner) - weights(by_hand)).norm() / weights(by_hand).norm() < 1e-5


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
    runner = Trainer(*taught("mlm", place, lesson={"hidden": Hidden(), "logits": Logits()}), alone)
    plain = Trainer(*small_task("mlm"), alone)
    projections = sum(p.numel() for p in runner.learner.distillation.parameters())
    assert projections == 2 * (48 * 32 + 48)
    count = sum(p.numel() for p in runner.learner.parameters())
    assert count == sum(p.numel() for p in plain.learner.parameters()) + projections
    assert runner.network.state_dict().keys() == plain.network.state_dict().keys()
    before = [p.clone() for p in runner.learner.distillation.teacher.teachers[0].network.parameters()]
    list(runner.steps())
    after = runner.learner.distillation.teacher.teachers[0].network.parameters()
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
    runner = Trainer(*taught(task, place, hard=0.0, **changes), alone)
    before = weights(runner)
    reports = list(runner.steps())
    (name,) = [name for name in runner.terms if "distill" in name]
    assert all(
        math.isfinite(float(report.losses.totals[name])) and float(report.losses.totals[name]) > 0 for report in reports
    )
    assert not torch.equal(weights(runner), before)


@pytest.mark.parametrize("name", WRITING)
def test_encoders_write_nothing(teachers, name):
    for task in ("mlm", "class"):
        with pytest.raises(ConfigError, match="an encoder writes none"):
            taught(task, teacher(teachers, "bert", task, ["a", "b", "c"]), distill=option(name))


@pytest.mark.parametrize(
    ("task", "big", "name"),
    [(task, big, name) for task, big in TASKS for name in OPTIONS if big != "bert" or name not in WRITING],
)
def test_every_option_trains_and_resumes_to_the_bit(alone, teachers, task, big, name):
    place = teacher(teachers, big, task, ["a", "b", "c"] if task == "class" else None)
    student = {"bert": "bert small", "gpt2": "gpt2 small", "t5": "t5 small"}[big]

    def fresh() -> Trainer:
        own, text = taught(task, place, dropout=0.1, model=MODELS[student], budget=Budget(steps=3), micro=5)
        return Trainer(replace(own, distill=option(name)), text, alone)

    undisturbed = fresh()
    reports = list(undisturbed.steps())
    stopped = fresh()
    steps = stopped.steps()
    next(steps)
    state, own = stopped.state_dict(), stopped.own_state()
    saved = {key: value.clone() for key, value in stopped.network.state_dict().items()}
    state["teaching"] = {key: value.clone() for key, value in state["teaching"].items()}
    steps.close()
    again = fresh()
    again.load(saved, state, own)
    for one, other in zip(reports[1:], again.steps(), strict=True):
        assert one.losses.totals == other.losses.totals
    assert torch.equal(weights(again), weights(undisturbed))


def test_two_processes_give_the_steps_of_one(alone, teachers):
    for task, model, _ in CASES.values():
        teacher(teachers, model, task, ["a", "b", "c"] if task == "class" else None)
    words = ["--standalone", "--nproc-per-node=2", str(HELPERS / "distill_workers.py"), str(teachers)]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words],
        env=environment(teachers / "cache", PYTHONPATH=f"{HELPERS}:{ROOT}"),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    two = torch.load(teachers / "found.pt")
    for case in CASES:
        one = trained(runner_of(alone, teachers, case))
        assert (one["weights"] - two[case]["weights"]).norm() < 5e-5 * one["weights"].norm(), case
        for ours, theirs in zip(one["terms"], two[case]["terms"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6), case


ADVERSARIES = [FastGradient(), FreeLB(), Smart(), RDrop(), Noise(WordDropout(0.3))]


@pytest.mark.parametrize("rule", ADVERSARIES, ids=lambda rule: type(rule).__name__)
def test_adversaries_drive_taught_passes(alone, teachers, rule):
    place = teacher(teachers, "bert", "mlm")
    lesson = {"logits": Logits(), "hidden": Hidden()}
    changes = {"dropout": 0.1, "adversary": rule, "lesson": lesson, "budget": Budget(steps=2), "micro": 4}
    runner = Trainer(*taught("mlm", place, chunk_mb=0.002, **changes), alone)
    reports = list(runner.steps())
    assert all(math.isfinite(float(value)) for report in reports for value in report.losses.totals.values())
    assert {"corpus/mlm", "corpus/distill_logits", "corpus/distill_hidden"} == set(reports[0].losses.totals)
    assert reports[0].adversarial.totals


def test_a_teacher_sees_rows_without_their_shift_and_once_for_all_passes(alone, teachers):
    runner = Trainer(*taught("mlm", teacher(teachers, "bert", "mlm"), adversary=FreeLB()), alone)
    live, looks = runner.learner.distillation.teacher, []
    original = live.outputs
    live.outputs = lambda *seen: looks.append((seen[0], original(*seen))) or looks[-1][1]  # type: ignore[method-assign]
    next(runner.steps())
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
    runner = Trainer(*taught("mlm", place, chunk_mb=0.002, **changes), alone)
    plain = Trainer(*taught("mlm", place, **changes | {"precision": plan().precision}), alone)
    for one, other in zip(runner.steps(), plain.steps(), strict=True):
        for term in runner.terms:
            assert float(one.losses.totals[term]) == pytest.approx(float(other.losses.totals[term]), rel=0.08), term


def test_fp16_scales_what_was_computed_in_chunks(alone, teachers):
    """Gradients of chunks are taken before the loss scale is known, and overflow like all others."""
    changes = {"precision": Fp16(initial_scale=2.0**30), "budget": Budget(steps=1), "chunk_mb": 0.002}
    runner = Trainer(*taught("mlm", teacher(teachers, "bert", "mlm"), **changes), alone)
    reports = list(runner.steps())
    assert runner.state.skipped > 0
    assert runner.state.step == 1
    plain = Trainer(*taught("mlm", teacher(teachers, "bert", "mlm"), budget=Budget(steps=1)), alone)
    (expected,) = plain.steps()
    assert float(reports[-1].grad_norm) == pytest.approx(float(expected.grad_norm), rel=0.5)


@pytest.mark.parametrize("name", ["bf16", "int8_weights", "nf4_lora"])
def test_a_teacher_has_a_precision_of_its_own(alone, teachers, name):
    low = build(Composer("train").load_option("precision", name), Precision)
    place = teacher(teachers, "bert", "mlm")
    runner = Trainer(*taught("mlm", place, rule={"teacher_precision": low}, budget=Budget(steps=1)), alone)
    plain = Trainer(*taught("mlm", place, budget=Budget(steps=1)), alone)
    (one,), (other,) = runner.steps(), plain.steps()
    assert float(one.losses.totals["corpus/mlm"]) == float(other.losses.totals["corpus/mlm"])
    near = float(other.losses.totals["corpus/distill_logits"])
    assert float(one.losses.totals["corpus/distill_logits"]) != near
    assert float(one.losses.totals["corpus/distill_logits"]) == pytest.approx(near, rel=0.2)


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
    runner = Trainer(*taught("mlm", teacher(teachers, "bert", "mlm"), lesson, hard=0.0, budget=Budget(steps=2)), alone)
    heads = runner.network.pretrained().cls.predictions.transform.dense.weight
    steps, before = runner.steps(), heads.clone()
    next(steps)
    moved = (heads - before).norm() / before.norm()
    next(steps)
    assert moved < 1e-3 < (heads - before).norm() / before.norm()


def test_gradient_checkpointing_gives_the_same_run(alone, teachers):
    place, lesson = teacher(teachers, "bert", "mlm"), {"logits": Logits(), "attention": Attention(), "hidden": Hidden()}
    changes = {"model": MODELS["bert small"], "budget": Budget(steps=2)}
    plain = Trainer(*taught("mlm", place, lesson, **changes), alone)
    list(plain.steps())
    again = Trainer(*taught("mlm", place, lesson, gradient_checkpointing=True, **changes), alone)
    list(again.steps())
    torch.testing.assert_close(weights(again), weights(plain))


@pytest.mark.parametrize(
    ("task", "big", "changes", "words", "remedy"),
    [
        ("mlm", "gpt2", {}, "is a decoder, and mix.tasks.corpus trains an encoder", "model=gpt2_tiny mix=clm"),
        ("translate", "bert", {}, "is an encoder, and mix.tasks.corpus trains an encoder with a decoder", "mlm"),
        (
            "mlm",
            "bert",
            {"seq_len": 65, "model": replace(MODELS["bert"], max_positions=99)},
            "longer than the 64",
            "64",
        ),
        ("mlm", "bert", {"lesson": {"hidden": Hidden()}, "compile": True}, "compiled code", "compile=false"),
    ],
)
def test_pairs_that_cannot_be_are_refused_before_any_work(teachers, task, big, changes, words, remedy):
    place = teacher(teachers, big, {"gpt2": "clm", "bert": "mlm"}[big])
    with pytest.raises(ConfigError, match=words) as error:
        taught(task, place, **changes)
    assert remedy in error.value.hint


def test_no_teacher_and_no_lesson_are_refused(teachers):
    with pytest.raises(ConfigError, match="there is no teacher"):
        plan(objective=MaskedLM(), distill=option("logits"))
    with pytest.raises(ConfigError, match="with distill=none nothing is learnt"):
        plan(objective=MaskedLM(), teacher=(teacher(teachers, "bert", "mlm"),))
    own, _ = taught("mlm", teacher(teachers, "bert", "mlm"))
    with pytest.raises(ConfigError, match="looks into the teacher, and there are 2"):
        replace(own, teacher=own.teacher * 2, distill=option("hidden"))


def test_a_teacher_of_other_tasks_labels_or_pieces_is_refused(alone, teachers, tmp_path):
    with pytest.raises(ConfigError, match=r"not trained for the tasks of this run: it has no .*classifier") as error:
        Trainer(*taught("class", teacher(teachers, "bert", "mlm")), alone)
    assert "distill=hidden" in error.value.hint
    with pytest.raises(ConfigError, match=r"has the labels a, b, c, and teacher=.* c, b, a"):
        Trainer(*taught("class", teacher(tmp_path, "bert", "class", ["c", "b", "a"])), alone)
    place = Path(teacher(tmp_path, "bert", "mlm"))
    text = (place / "tokenizer.json").read_text().replace('"w59"', '"other"')
    (place / "tokenizer.json").write_text(text)
    with pytest.raises(ConfigError, match="vocabularies differ") as error:
        Trainer(*taught("mlm", str(place)), alone)
    assert "tokenizer=pretrained" in error.value.hint


def test_a_state_that_a_student_lacks_is_refused(alone, teachers):
    place = teacher(teachers, "gpt2", "clm")
    changes = {"model": MODELS["lstm"]}
    with pytest.raises(ConfigError, match="has no attention maps"):
        Trainer(*taught("clm", place, {"minilm": MiniLM()}, **changes), alone)
    place = teacher(teachers, "marian", "translate")
    with pytest.raises(ConfigError, match="cannot be looked into"):
        Trainer(*taught("translate", place, {"hidden": Hidden()}, model=MODELS["rnn_mt"]), alone)


def test_gap_closed():
    assert closed(False, 2.5, 3.0, 2.0) == pytest.approx(0.5)
    assert closed(True, 0.8, 0.7, 0.9) == pytest.approx(0.5)
    assert closed(True, 0.6, 0.7, 0.9) == pytest.approx(-0.5)
    assert closed(True, 0.8, 0.7, 0.6) is None


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
    runner = Trainer(replace(own, distill=rule, teacher=(str(tmp_path),)), text, alone)
    reports = list(runner.steps())
    assert set(reports[0].losses.totals) == {
        *("corpus/mlm", "corpus/distill_logits", "corpus/distill_hidden"),
        *("topics/label", "topics/distill_logits", "topics/distill_hidden"),
    }
    assert len(runner.learner.balance.log_variance) == 2
    assert all(math.isfinite(float(value)) for report in reports for value in report.losses.totals.values())


@pytest.mark.parametrize(
    "spec", [RecurrentLM(1, 32, dropout=0.5), Gpt2(2, 32, 2, 64, dropout=0.5)], ids=["lstm", "gpt2"]
)
def test_a_teacher_drops_nothing(tmp_path, spec):
    """What it says of a batch is the same each time, while its student learns with dropout."""
    place = save_teacher(tmp_path / "teacher", spec, {"lm": vocabulary().size})
    rule = Curriculum({"logits": Logits()})
    own, text = small_task("clm", dropout=0.5, teacher=(str(place),), distill=rule)
    runner = Trainer(own, text, Processes(on_cpu=True))
    network = runner.learner.distillation.teacher.teachers[0].network
    next(runner.steps())
    assert runner.network.training
    assert not any(module.training for module in network.modules())
    batch = runner.stream.first("corpus", 4)
    looks = [looked(runner, batch).answers("lm", "lm", slice(0, 20)).logits for _ in range(2)]
    assert torch.equal(*looks)
    network.train()
    other = looked(runner, batch).answers("lm", "lm", slice(0, 20)).logits
    assert not torch.equal(looks[0], other)  # it could have
