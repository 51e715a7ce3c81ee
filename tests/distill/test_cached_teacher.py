"""`teacher_cache=`: the teacher is asked once, and a student learns from its answers as from itself."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from command import lmctl, metrics, succeed, summary
from resumed import goes_on_to_the_bit
from small import documents, plan, prepared, weights
from taught import BIG, save_teacher, taught, trainer_of

from lmctl.augment.char_noise import CharNoise
from lmctl.config.schema import BatchShape, Budget, Evaluation, Logging
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import ConfigError, DataError
from lmctl.distill import cached_teacher
from lmctl.distill.cached_teacher import fill_cache
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence
from lmctl.optim.adamw import AdamW
from lmctl.plan import Plan
from lmctl.precision.bf16 import Bf16
from lmctl.precision.int8 import Int8
from lmctl.train.static_masking import Repeating, versions_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def kept(teacher, cache, **changes):
    """A plan with all that it will ask for in the cache."""
    some = taught(teacher, cache_dir=cache, teacher_cache="auto", **{"maskings": 2, "teacher_cache_k": None} | changes)
    fill_cache(some, prepared(), CPU, lambda line: None)
    return some


def test_a_student_learns_the_same_from_kept_answers_as_from_the_teacher(teacher, cache):
    budget = Budget(steps=15)  # of 12 steps an epoch
    live, from_cache = (
        trainer_of(some)
        for some in (taught(teacher, maskings=2, budget=budget), kept(teacher, cache, budget=budget, micro=3))
    )
    before = weights(live)
    for one, other in zip(live.steps(), from_cache.steps(), strict=True):
        for name in one.losses.totals:
            assert float(one.losses.totals[name]) == pytest.approx(float(other.losses.totals[name]), rel=1e-5)
    assert live.state.position["rows"]["corpus"] > len(live.stream.streams["corpus"].examples)
    moved = (weights(live) - before).norm()
    assert (weights(live) - weights(from_cache)).norm() < 1e-4 * moved


def test_answers_cut_short_are_nearly_the_teachers(teacher, cache):
    first = [
        float(next(trainer_of(some).steps()).losses.totals["corpus/distill_logits"])
        for some in (kept(teacher, cache), *(kept(teacher, cache, teacher_cache_k=k) for k in (60, 10)))
    ]
    assert first[1] == pytest.approx(first[0], rel=0.1)
    assert abs(first[1] - first[0]) < abs(first[2] - first[0])


def test_the_teacher_is_never_loaded(teacher, cache, monkeypatch):
    some = kept(teacher, cache)

    def never(*_):
        raise AssertionError("the teacher was loaded")

    monkeypatch.setattr(cached_teacher, "teacher_of", never)
    fill_cache(some, prepared(), CPU, lambda line: None)
    assert len(list(trainer_of(some).steps())) == 5
    # Nor by a job of a sweep that differs in what the answers do not depend on.
    other = taught(teacher, cache_dir=cache, teacher_cache="use", maskings=1, teacher_cache_k=None, size=4, hard=0.0)
    assert len(list(trainer_of(other).steps())) == 5


def test_several_terms_and_an_interruption(tmp_path, cache):
    """A task with two kinds of answers; a run in two halves ends with the bits of the whole one."""
    teacher = save_teacher(tmp_path, BIG, {"mlm": 85, "pair": 2})
    some = kept(teacher, cache, objective=MaskedLMAndNextSentence(), budget=Budget(steps=6), teacher_cache_k=20)
    goes_on_to_the_bit(lambda: trainer_of(some), 3, tmp_path)


def test_rows_come_again_as_they_were():
    examples = trainer_of(plan()).stream.streams["corpus"].examples
    some, draws, rows = Repeating(examples, 3), CounterRng(1, "corpus/rows"), np.arange(4)
    for epoch in (0, 2, 4, 9):
        one, other = (e.collate(rows, np.full(4, n), draws) for e, n in ((some, epoch), (examples, epoch % 3)))
        assert torch.equal(one.inputs["input_ids"], other.inputs["input_ids"])
    assert len(some) == len(examples)
    assert some.tokens_per_row == examples.tokens_per_row


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [
        ({"maskings": 4}, 4),
        ({"budget": Budget(epochs=2.5)}, 3),
        ({"budget": Budget(steps=30)}, 3),  # of 8 rows, from 100
        ({"budget": Budget(steps=30, minutes=5)}, 3),
        ({"budget": Budget(steps=30, epochs=0.5)}, 1),
    ],
)
def test_as_many_versions_as_the_budget_has_epochs(teacher, changes, epochs):
    some = taught(teacher, teacher_cache="use", **changes)
    assert versions_of(some, {"corpus": range(100)}) == epochs
    assert versions_of(taught(teacher, **changes), {"corpus": range(100)}) == changes.get("maskings")


def test_nobody_knows_how_many(teacher):
    for budget in (Budget(minutes=1), Budget(tokens=1000)):
        with pytest.raises(ConfigError, match="nobody knows how often each row will be seen") as caught:
            versions_of(taught(teacher, teacher_cache="auto", budget=budget), {"corpus": range(100)})
        assert "maskings=N" in caught.value.hint


def test_answers_about_other_rows_are_not_taken(teacher, tmp_path):
    some = kept(teacher, str(tmp_path), maskings=1)
    for changes, words in (({"seed": 2}, "another seed"), ({"batch": BatchShape(8, seq_len=24)}, "another seq_len")):
        other = taught(teacher, cache_dir=str(tmp_path), teacher_cache="use", maskings=1, teacher_cache_k=None)
        with pytest.raises(ConfigError, match=f"nearest answers in .* are of {words}"):
            trainer_of(replace(other, **changes))
    other = save_teacher(tmp_path / "other", seed=8)
    with pytest.raises(ConfigError, match="are of another teacher"):
        trainer_of(replace(some, teacher=(str(other),)))


def test_a_cache_of_rows_that_changed_is_noticed_while_training(teacher, cache):
    trainer = trainer_of(kept(teacher, cache))
    trainer.stream.streams["corpus"].draws = CounterRng(5, "something else")
    with pytest.raises(DataError, match="is not the one that the teacher saw"):
        next(trainer.steps())


@pytest.mark.slow
def test_build_here_learn_there(tmp_path):
    """By commands: the teacher's answers first, then a student from them."""
    (tmp_path / "text.txt").write_text("\n\n".join("\n".join(sentences) for sentences in documents(20)) + "\n")
    save_teacher(tmp_path / "teacher")
    words = ["teacher=teacher", "mix=mlm", "data=text", "data.path=text.txt", "model=bert_tiny", "model.layers=1"]
    words += ["budget.steps=4", "log.every=2", "runner=cpu", "name=student", "run_dir=student", "maskings=1"]
    words += ["distill.control=false", "batch.seq_len=32"]
    refused = lmctl("distill", *words, "teacher_cache=use", cwd=tmp_path)
    assert refused.returncode == 2
    assert "error: teacher_cache=use: there are no answers of any teacher in " in refused.stderr
    assert "make it: teacher_cache=build (or auto)" in refused.stderr
    built = succeed("distill", *words, "teacher_cache=build", cwd=tmp_path)
    assert re.search(r"masking 1 of 1: [\d,]+ rows, .* MiB \(204 bytes per target\), cache miss: asked", built.stderr)
    assert not (tmp_path / "student/config.yaml").exists()
    succeed("distill", *words, "teacher_cache=use", cwd=tmp_path)
    assert summary(tmp_path / "student")["steps"] == 4
    trained = next(line for line in metrics(tmp_path / "student") if line["split"] == "train")
    assert "loss/corpus/distill_logits" in trained


MATTERS = {
    "model": replace(BIG, layers=1, max_positions=32),
    "mix": None,
    "distill": None,
    "batch": BatchShape(8, seq_len=24),
    "teacher": None,
    "teacher_cache_k": 7,
    "seed": 2,
    "maskings": 3,
}
"""Fields of a plan of which some part decides what a teacher says of which rows."""
ELSEWHERE = {"data", "augment", "tokenizer"}
"""They matter as the tasks have them, and as fingerprints."""


def test_what_is_kept_is_told_by_all_that_decides_it(teacher, tmp_path):
    """A change of a part that decides what the teacher is asked, or says, gives other keys; of any other part, the
    same ones. No field of a plan may be forgotten."""
    some = taught(teacher, teacher_cache="auto", maskings=2, teacher_cache_k=None)
    (task,), rows = some.mix.tasks.values(), {"corpus": range(100)}

    def keys(own=some, text=None) -> str:
        return json.dumps(cached_teacher.keys_of(own, text or prepared(), rows)["corpus"][0], sort_keys=True)

    def with_task(**changes) -> Plan:
        return replace(some, mix=replace(some.mix, tasks={"corpus": replace(task, **changes)}))

    other_teacher = save_teacher(tmp_path / "other", seed=8)
    lesson = some.distill
    different = {
        "augment": with_task(augment=CharNoise()),
        "augment, otherwise": with_task(augment=CharNoise(typo_rate=0.5)),
        "objective": with_task(objective=replace(task.objective, mask_rate=0.3)),
        "name": replace(some, mix=replace(some.mix, tasks={"other": task})),
        "precision": replace(some, distill=replace(lesson, teacher_precision=Bf16())),
        "precision, otherwise": replace(some, distill=replace(lesson, teacher_precision=Int8())),
        "precision in detail": replace(some, distill=replace(lesson, teacher_precision=Int8(exclude=["*query"]))),
        "teacher": replace(some, teacher=(str(other_teacher),)),
        "teachers": replace(some, teacher=(str(teacher), str(other_teacher))),
        "seq_len": replace(some, batch=MATTERS["batch"]),
        "k": replace(some, teacher_cache_k=7),
        "seed": replace(some, seed=2),
    }
    before, found = keys(), {}
    for name, own in different.items():
        text = prepared() if name != "name" else _named(prepared(), "other")
        names = {"other": range(100)} if name == "name" else rows
        found[name] = json.dumps(next(iter(cached_teacher.keys_of(own, text, names).values()))[0], sort_keys=True)
    assert before not in found.values()
    assert len(set(found.values())) == len(found)
    for changed in ("corpus", "tokenizer"):
        prints = prepared().fingerprints | {changed: "another"}
        assert keys(text=replace(prepared(), fingerprints=prints)) != before
    neutral = {
        "optim": AdamW(lr=7.0),
        "budget": Budget(steps=99),
        "clip_norm": None,
        "precision": Bf16(),
        "log": Logging(every=7),
        "eval": Evaluation(rows=3),
        "gradient_checkpointing": True,
        "name": "another",
        "run_dir": "elsewhere",
    }
    assert all(keys(replace(some, **{name: value})) == before for name, value in neutral.items())
    assert keys(replace(some, distill=replace(lesson, hard=0.9))) == before
    left = {"adversary", "checkpoint", "compile", "compression", "early_stop", "init_from", "resume", "runner"}
    left |= {"resume_allow", "on_nonfinite", "max_skips", "spike", "watchdog_s", "kernels", "cross_entropy", "tracker"}
    left |= {"schedule", "average", "z_loss", "student", "teacher_cache", "cache_dir"}
    assert {field.name for field in fields(Plan)} == MATTERS.keys() | neutral.keys() | ELSEWHERE | left


def _named(text, name: str):
    (corpus,) = text.corpora.values()
    return replace(text, corpora={name: corpus}, fingerprints=text.fingerprints | {name: text.fingerprints["corpus"]})
