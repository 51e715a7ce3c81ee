"""Every key of the verbs that look before a run (peek, prepare, plan) has an effect on what they print or write.

The keys are those of the schemas, so that a new one cannot be forgotten here.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from command import write_documents
from small import plan, prepared
from walked import alone
from walked import keys as keys_of_a_run

from lmctl.config.compose import Composer
from lmctl.config.schema import Budget
from lmctl.config.verb import verb as named
from lmctl.cost.budget import spending
from lmctl.cost.communication import GIGABIT
from lmctl.cost.known_data import Known
from lmctl.cost.rows import examples_for, samples
from lmctl.objective.mlm import MaskedLM
from lmctl.train.trainer import Trainer

PEEK = {
    "seed": ["seed=2"],
    "batch": ["batch.seq_len=24"],
    "rows": ["rows=1"],
    "split": ["split=valid"],
    "epoch": ["epoch=1"],
    "format": ["format=json"],
}
PREPARE = {"cache_dir": ["cache_dir=elsewhere"]}
THERE = [
    "runner=ddp",
    "gpu=l4",
    "gpus=4",
    "gpu_memory_gib=20",
    "bandwidth_gbps=2.5",
    "latency_us=7.0",
    "mix=mlm",
    "model.layers=1",
    "format=json",
]
PLAN = {
    "bandwidth_gbps": "bandwidth_gbps=1",
    "latency_us": "latency_us=900",
    "gpu": "gpu=a100",
    "gpu_memory_gib": "gpu_memory_gib=24",
    "gpus": "gpus=2",
    "format": "format=text",
}
ELSEWHERE = {
    "model": "a component",
    "data": "a component",
    "augment": "a component",
    "mix": "a component",
    "tokenizer": "a component",
    "init_from": "handed on to model and tokenizer, whose keys are tried elsewhere",
    "cache_dir": "see PREPARE",
    "trusted": "tests/config/test_build.py",
}
SAME_WORDS_AS_TRAIN = {"seed", "batch"}
"""What `prepare` takes so that a run can be prepared with its own words: tokens do not depend on it."""


def test_no_key_is_forgotten():
    peek, prepare, whole = (
        {field.name for field in fields(named(verb).schema)} for verb in ("peek", "prepare", "plan")
    )
    assert {*PEEK, *ELSEWHERE} == peek
    assert {*PREPARE, *ELSEWHERE, *SAME_WORDS_AS_TRAIN} == prepare
    train = {field.name for field in fields(named("train").schema)}
    assert whole - train == {*PLAN, "measure", "out"}  # of these two tests/cost/test_plan_verb.py
    assert {key.partition(".")[0] for key in keys_of_a_run()} <= train


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_documents(folder / "docs.txt")
    return folder


@pytest.fixture
def printed(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What a verb prints on standard output, typed in a folder with a small text."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("LMCTL_CACHE", str(home / "cache"))
    monkeypatch.setenv("COLUMNS", "250")

    def of(verb: str, *words: str) -> str:
        capsys.readouterr()
        here = ["data=text", "data.path=docs.txt", "tokenizer.vocab_size=300", "batch.seq_len=32"]
        here += ["model.hidden=32", "model.feed_forward=64"] if verb == "plan" else []
        named(verb).run(named(verb).read(Composer(verb).task([*here, *words])))
        return capsys.readouterr().out

    return of


def test_every_key_of_peek_changes_what_is_shown(printed):
    one, again, *others = (printed("peek", *words).split("\n", 1) for words in ([], [], *PEEK.values()))
    assert one == again
    assert one[1] not in [other[1] for other in others]  # the first line says what was asked for


def test_the_cache_is_where_it_is_said_to_be(home: Path, printed):
    printed("prepare", "seed=3", "batch.size=4")
    assert not (home / "elsewhere").exists()
    printed("prepare", *PREPARE["cache_dir"])
    assert list((home / "elsewhere").rglob("*.json"))


def test_every_key_of_plan_changes_what_is_printed(printed, monkeypatch: pytest.MonkeyPatch):
    """And what is said of another machine is what was asked."""
    monkeypatch.setattr("lmctl.cost.estimate._other", lambda *_: None)  # not this test's concern, and half of its time
    seen = {key: printed("plan", *THERE, other) for key, other in PLAN.items()}
    first = printed("plan", *THERE)
    assert first not in seen.values()
    assert len(set(seen.values())) == len(PLAN)
    found = json.loads(first)
    assert found["machine"]["gpus"] == found["wire"]["workers"] == 4
    assert found["machine"]["memory_bytes"] == found["room_bytes"] == 20 * 2**30
    assert "L4" in found["machine"]["gpu"]
    # A ring of four sends 2 (W - 1) / W of 4 bytes for each weight; a Gbit are 10^9 bits.
    assert found["wire"]["bytes"] == pytest.approx(2 * 3 / 4 * 4 * found["parameters"]["trainable"], rel=1e-3)
    # There and back again through a tree of four, of one bucket.
    assert found["wire"]["seconds"] == pytest.approx(8 * found["wire"]["bytes"] / 2.5e9 + 4 * 7e-6)
    assert pytest.approx(1e9 / 8) == GIGABIT


@pytest.mark.parametrize(
    ("budget", "limit"),
    [
        (Budget(steps=7), "budget.steps"),
        (Budget(), "budget.steps"),
        (Budget(epochs=0.3), "budget.epochs"),
        (Budget(epochs=1), "budget.epochs"),
        (Budget(steps=4, epochs=1), "budget.steps"),
        (Budget(steps=900, epochs=0.7), "budget.epochs"),
        (Budget(tokens=1500), "budget.tokens"),
        (Budget(steps=2, tokens=1500), "budget.steps"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("size", [7, 8])
def test_a_plan_counts_the_steps_that_a_run_takes(budget: Budget, limit: str, size: int):
    """Whichever limit is reached first; a step that is begun is taken whole."""
    wanted, known = plan(objective=MaskedLM(), budget=budget, size=size), Known(prepared(), frozenset({"corpus"}), ())
    examples = examples_for(wanted, known)
    found = spending(wanted, known, examples, samples(wanted, examples, 1), None)
    assert found.limit == limit
    assert found.rows_per_step == size
    assert found.steps is not None
    assert found.tokens == pytest.approx(found.steps * found.tokens_per_step, rel=0.01)
    if budget == Budget():
        assert found.steps == 3600
        return
    reports = list(Trainer(wanted, prepared(), alone()).steps())
    if limit == "budget.tokens":  # rows differ in length
        assert abs(found.steps - len(reports)) <= 1
    else:
        assert found.steps == len(reports)
    assert found.tokens == pytest.approx(sum(report.tokens["corpus"] for report in reports), rel=0.1)


@pytest.mark.parametrize("seconds", [0.5, 3.0])
def test_minutes_are_steps_where_the_speed_is_known(seconds: float):
    wanted = plan(objective=MaskedLM(), budget=Budget(minutes=2))
    known = Known(prepared(), frozenset({"corpus"}), ())
    examples = examples_for(wanted, known)
    assert spending(wanted, known, examples, samples(wanted, examples, 1), seconds).steps == 120 / seconds
    unknown = spending(wanted, known, examples, samples(wanted, examples, 1), None)
    assert (unknown.steps, unknown.tokens, unknown.limit) == (None, None, "budget.minutes")
