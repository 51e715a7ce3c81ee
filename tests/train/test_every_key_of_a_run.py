"""Every key of a run that belongs to no component has an effect: on its steps, its record, its checkpoints, or what it
asks of a teacher.

The keys are those of the schema, so that a new one cannot be forgotten here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from sessions import lines, session
from small import plan, prepared
from small_tasks import small_task
from taught import save_teacher, taught
from walked import alone, keys, trained

from lmctl.config.compose import Composer
from lmctl.config.schema import BatchShape, Budget, Checkpointing, Evaluation, Logging, Student
from lmctl.core.errors import ConfigError
from lmctl.distill.cached_teacher import CachedTeacher, fill_cache, keys_of
from lmctl.model.bert import Bert
from lmctl.objective.mlm import MaskedLM
from lmctl.plan import Plan
from lmctl.train.build_parts import examples_of
from lmctl.train.trainer import Trainer

LIVELY = Bert(2, 32, 2, 64, max_positions=64)


@dataclass(frozen=True)
class Two:
    """Changes to the small plan, without and with the other value of a key."""

    one: Mapping[str, Any]
    other: Mapping[str, Any]
    shown: str = "weights"
    """Where it is seen: in the weights, or in what is said of the steps."""


LONG = Budget(steps=12)
STEPS: dict[str, Two] = {
    "budget.steps": Two({}, {"budget": Budget(steps=3)}),
    "budget.tokens": Two({}, {"budget": Budget(steps=5, tokens=500)}),
    "budget.epochs": Two({}, {"budget": Budget(steps=5, epochs=0.2)}),
    "budget.minutes": Two({}, {"budget": Budget(steps=5, minutes=1e-6)}),
    "batch.size": Two({}, {"size": 4}),
    "batch.tokens": Two({}, {"batch": BatchShape(tokens=4 * 32, seq_len=32)}),
    "batch.micro": Two({}, {"micro": 2}, "said"),
    "batch.seq_len": Two({}, {"seq_len": 24}),
    "batch.ramp": Two({}, {"batch": BatchShape(size=8, seq_len=32, ramp=0.5)}),
    "batch.length_ramp": Two({}, {"batch": BatchShape(size=8, seq_len=32, length_ramp=0.5)}),
    "clip_norm": Two({}, {"clip_norm": 0.01}),
    "z_loss": Two({}, {"z_loss": 1.0}),
    "seed": Two({}, {"seed": 2}),
    "maskings": Two({"budget": LONG, "size": 32}, {"budget": LONG, "size": 32, "maskings": 1}),
}
"""Keys that are seen in the steps themselves."""
RECORD: dict[str, tuple[dict[str, Any], str]] = {
    "eval.every": ({"eval": Evaluation(every=1, rows=16)}, "valid"),
    "eval.rows": ({"eval": Evaluation(every=2, rows=3)}, "valid"),
    "checkpoint.every": ({"checkpoint": Checkpointing(every=5)}, "checkpoints"),
    "checkpoint.keep": ({"checkpoint": Checkpointing(keep=4)}, "checkpoints"),
    "log.every": ({"log": Logging(every=1)}, "train"),
}
"""Another value, and the part of the record that must differ."""
ELSEWHERE = {
    "test_early_stopping": ["early_stop.metric", "early_stop.patience", "early_stop.min_delta"],
    "test_a_student_begins_with_the_layers_that_are_named": ["student.from_teacher"],
    "test_activations_are_recomputed_if_they_shall": ["gradient_checkpointing"],
    "test_the_network_is_compiled_if_it_shall": ["compile"],
    "tests/kernels/test_choice.py": ["kernels", "cross_entropy"],
    "tests/distill/test_cached_teacher.py": ["teacher", "teacher_cache_k"],
    "test_answers_come_from_where_they_are_said_to": ["teacher_cache"],
    "tests/train/test_train.py: the directory of a run": ["name"],
    "tests/train/test_identity.py": ["run_dir"],
    "tests/train/test_resume.py": ["resume"],
    "tests/guarantees/test_g14_resume_allow.py": ["resume_allow"],
    "tests/model/test_every_key_of_a_model.py, to which it is handed on": ["init_from"],
    "tests/core/test_cache.py": ["cache_dir"],
    "tests/guarantees/test_g05_save_error.py": ["checkpoint.on_error", "checkpoint.background"],
    "tests/guarantees/test_g07_nonfinite.py": [
        "on_nonfinite",
        "max_skips",
        "spike.action",
        "spike.sigma",
        "spike.steps",
    ],
    "tests/guarantees/test_g12_watchdog.py": ["watchdog_s"],
    "tests/jobs/test_stages.py": ["stages", "stage"],
    "tests/config/test_build.py": ["trusted"],
}
"""Where other keys are tried."""


def test_no_key_is_forgotten():
    assert {*STEPS, *RECORD, *(key for there in ELSEWHERE.values() for key in there)} == keys()


@pytest.mark.parametrize("key", STEPS)
def test_every_key_of_the_steps_changes_them(key: str):
    two = STEPS[key]
    shape = {"objective": MaskedLM()}
    one, other = (getattr(trained(plan(**shape | dict(some)), prepared()), two.shown) for some in (two.one, two.other))
    assert one != other


def test_without_a_limit_gradients_stay_as_they_are():
    many = [trained(plan(objective=MaskedLM(), clip_norm=norm), prepared()).weights for norm in (None, 1e6, 0.01)]
    assert many[0] == many[1] != many[2]


def recorded(folder: Path, **changes: Any) -> dict[str, list[Any]]:
    """The record of a run by its parts, without what the clock decides."""
    small = {"budget": Budget(steps=8), "eval": Evaluation(every=2, rows=16), "log": Logging(every=4)}
    run = session(folder, plan(**{"objective": MaskedLM()} | small | changes), prepared())
    run.run()
    losses = {split: [(line["step"], line["loss"]) for line in lines(folder, split)] for split in ("train", "valid")}
    return {**losses, "checkpoints": sorted(path.name for path in run.checkpoints.root.glob("step-*"))}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    return recorded(tmp_path_factory.mktemp("usual") / "run")


def test_a_record_says_what_its_keys_say(usual: dict[str, list[Any]]):
    assert [step for step, _ in usual["valid"]] == [0, 2, 4, 6, 8]
    assert [step for step, _ in usual["train"]] == [4, 8]
    best = min(usual["valid"], key=lambda point: point[1])[0]
    newest = {"step-00000006", "step-00000008"}
    assert newest <= set(usual["checkpoints"]) <= {*newest, f"step-{best:08d}"}


@pytest.mark.parametrize("key", RECORD)
def test_every_key_of_the_record_changes_it(key: str, usual: dict[str, list[Any]], tmp_path: Path):
    changes, part = RECORD[key]
    found = recorded(tmp_path / "run", **changes)
    assert found[part] != usual[part]
    others = {"train", "valid", "checkpoints"} - {part, "checkpoints"}
    assert all(found[other] == usual[other] for other in others)


def test_activations_are_recomputed_if_they_shall():
    """A layer computes once more in the backward pass."""
    passes = []
    for wanted in (False, True):
        trainer = Trainer(plan(budget=Budget(steps=1), gradient_checkpointing=wanted), prepared(), alone())
        done: list[Any] = []
        trainer.network.model.bert.encoder.layer[0].intermediate.register_forward_hook(
            lambda *_, done=done: done.append(1)
        )
        list(trainer.steps())
        passes.append(len(done))
    assert passes == [1, 2]


def test_the_network_is_compiled_if_it_shall(monkeypatch: pytest.MonkeyPatch):
    done: list[bool] = []
    monkeypatch.setattr("lmctl.model.bert_network.BertNetwork.compile_body", lambda self: done.append(True))
    for wanted in (False, True):
        Trainer(plan(compile=wanted), prepared(), alone())
        assert bool(done) == wanted


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [save_teacher(tmp_path_factory.mktemp("teacher"), seed=seed) for seed in (7, 8)]


def test_a_student_begins_with_the_layers_that_are_named(teachers: list[Path]):
    seen = {
        repr(start): trained(taught(teachers[0], student=Student(start), budget=Budget(steps=1)), prepared()).weights
        for start in (None, "first", "last", [0, 2])
    }
    assert len(set(seen.values())) == len(seen)


def test_answers_come_from_where_they_are_said_to(teachers: list[Path], tmp_path: Path):
    here = {"cache_dir": str(tmp_path), "maskings": 1}

    def remembers(kind: str) -> bool:
        trainer = Trainer(taught(teachers[0], teacher_cache=kind, **here), prepared(), alone())
        return isinstance(trainer.learner.distillation.teacher, CachedTeacher)

    assert not remembers("off")
    with pytest.raises(ConfigError):
        remembers("use")
    fill_cache(taught(teachers[0], teacher_cache="build", **here), prepared(), torch.device("cpu"), lambda line: None)
    assert remembers("use")
    assert remembers("auto")


def test_validation_looks_at_no_more_rows_than_it_says():
    """Of rows that follow one another; eval.rows above is of rows in any order."""
    found = {}
    for rows in (1, 2, None):
        trainer = Trainer(*small_task("clm_stream", eval=Evaluation(rows=rows)), alone())
        assert len(trainer.validation.examples["corpus"]) > 2
        found[rows] = trainer.validation.scores(trainer.learner)["loss"]
    assert len(set(found.values())) == 3


def test_kept_answers_hold_for_any_batch_and_student_and_for_so_many_maskings(teachers: list[Path]):
    """What else they depend on, or not: tests/distill/test_cached_teacher.py."""

    def kept(**changes: Any) -> Any:
        some = taught(teachers[0], teacher_cache="use", **{"maskings": 1} | changes)
        rows = examples_of(some.mix, "encoder", some.batch, prepared(), "train", augmented=True)
        return keys_of(some, prepared(), rows)

    assert kept() == kept(size=4) == kept(model=LIVELY) != kept(maskings=2)


TYPED: dict[str, Any] = {
    "name": "mine", "run_dir": "there", "resume": "auto", "cache_dir": "here", "clip_norm": 0.3, "seed": 7,
    "resume_allow": ["data"], "maskings": 3, "teacher_cache_k": 8, "gradient_checkpointing": True, "compile": True,
    "kernels": "torch", "cross_entropy": "torch",
    "budget.tokens": 77, "batch.micro": 2, "eval.rows": 5, "checkpoint.keep": 6, "early_stop.patience": 4,
    "log.every": 9,
}  # fmt: skip


def test_what_is_typed_reaches_the_plan():
    """All at once, each with a value of its own, so that no two are exchanged."""
    cfg = Composer("train").task([f"{key}={str(value).lower()}" for key, value in TYPED.items()])
    made = Plan.from_config(cfg)
    for key, value in TYPED.items():
        section, _, field = key.rpartition(".")
        assert getattr(getattr(made, section) if section else made, field) == value, key
