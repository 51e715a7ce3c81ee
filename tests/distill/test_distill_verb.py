"""`lmctl distill` as typed: the shortest command works, the control is shared, the gap is what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import SMALL, metrics, succeed, summary, write_documents
from in_process import run_here
from omegaconf import OmegaConf

from lmctl.config.compose import Composer
from lmctl.config.overrides import Overrides
from lmctl.jobs.distilling import distill
from lmctl.jobs.stages import plan_stages, verb_of
from lmctl.jobs.training import Training

TINY = ["model.hidden=16", "model.feed_forward=32", "eval.rows=16", "log.every=2", "runner=cpu", "budget.steps=4"]
"""Of the student; text, tasks, tokenizer and length of rows come from its teacher."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher in runs/big, and a student of it in runs/small."""
    folder = tmp_path_factory.mktemp("distill")
    write_documents(folder / "text.txt")
    big = ["mix=mlm", "data.path=text.txt", "name=big", "budget.steps=12", "model.layers=3"]
    run_here("train", *SMALL, *big, cwd=folder)
    (folder / "said.txt").write_text(run_here("distill", "teacher=runs/big", "name=small", *TINY, cwd=folder))
    return folder


def test_the_shortest_command_takes_everything_from_the_teacher(place: Path):
    config, big = (OmegaConf.load(place / "runs" / name / "config.yaml") for name in ("small", "big"))
    assert config.teacher == "runs/big"
    assert config.mix.tasks == big.mix.tasks
    assert (config.data, config.batch.seq_len, config.tokenizer.path) == (big.data, 32, "runs/big")
    ours, theirs = (json.loads((place / f"runs/{name}/model/tokenizer.json").read_text()) for name in ("small", "big"))
    assert ours["model"] == theirs["model"]
    prints = json.loads((place / "runs/small/environment.json").read_text())["fingerprints"]
    assert len(json.loads(prints["teacher"])[0]) == 64


def test_all_terms_are_in_the_record(place: Path):
    (line,) = [line for line in metrics(place / "runs/small") if line["step"] == 2 and line["split"] == "train"]
    assert line["loss"] == line["loss/corpus/mlm"]
    assert line["loss/corpus/distill_logits"] > 0
    valid = [line for line in metrics(place / "runs/small") if line["split"] == "valid"]
    assert not any("distill" in key for line in valid for key in line)


def test_the_control_is_the_same_student_without_a_teacher(place: Path):
    found = summary(place / "runs/small")
    folder = place / found["control"]["run_dir"]
    config = OmegaConf.load(folder / "config.yaml")
    assert config.teacher is None
    assert config.distill["_target_"] == "lmctl.distill.none.NoTeacher"
    assert metrics(folder)[0] == metrics(place / "runs/small")[0]  # before the first step
    assert summary(folder)["valid"] == found["control"]["valid"] != found["valid"]
    assert summary(folder)["tokens"] == found["tokens"]


def test_python_can_do_the_same(place: Path, monkeypatch: pytest.MonkeyPatch):
    """One function, given a config; the same student, so that the same control is found."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("LMCTL_CACHE", str(place / "cache"))
    composer = Composer("distill")
    composer.start_from("runs/small/config.yaml", Overrides())
    found, typed = distill(Training.from_config(composer.task(["name=python"]))), summary(place / "runs/small")
    assert found == summary(place / "runs/python")
    assert found["control"] == typed["control"]
    assert found["valid"] == pytest.approx(typed["valid"], rel=1e-3)


def test_gap_size_and_speed_are_measured(place: Path):
    found, big = summary(place / "runs/small"), summary(place / "runs/big")
    teacher, alone = found["teacher"], found["control"]["valid"]
    assert teacher["valid"] == pytest.approx(big["valid"], abs=1e-6)
    assert (teacher["path"], teacher["parameters"]) == ("runs/big", big["parameters"]["total"])
    assert found["gap_closed"].keys() == alone.keys()
    loss = (found["valid"]["loss"] - alone["loss"]) / (teacher["valid"]["loss"] - alone["loss"])
    assert found["gap_closed"]["loss"] == pytest.approx(loss)
    assert teacher["ms_per_row"].keys() == found["ms_per_row"].keys() == {"1", "8"}
    assert all(value > 0 for value in (*teacher["ms_per_row"].values(), *found["ms_per_row"].values()))
    said = (place / "said.txt").read_text()
    for words in ("alone  distilled   teacher  gap closed", "% smaller, and", "control: the same student without"):
        assert words in said


def test_the_control_is_found_again_and_a_finished_run_stays_as_it_is(place: Path):
    before = (place / "runs/small/metrics.jsonl").read_bytes()
    again = run_here("distill", "resume=auto", "run_dir=runs/small", cwd=place)
    assert "runs/small is complete" in again
    assert "is there already" in again
    assert (place / "runs/small/metrics.jsonl").read_bytes() == before
    words = ["distill", "teacher=runs/big", "name=warm", *TINY, "distill.terms.logits.temperature=4"]
    assert "is there already" in run_here(*words, cwd=place)
    assert summary(place / "runs/warm")["control"] == summary(place / "runs/small")["control"]
    assert summary(place / "runs/warm")["valid"] != summary(place / "runs/small")["valid"]


def test_a_run_does_not_go_on_with_another_teacher(place: Path):
    words = ["teacher=runs/small", "resume=auto", "run_dir=runs/small", "budget.steps=6"]
    said = run_here("distill", *words, cwd=place, ends=2)
    assert "resume: the teacher is not the one this run began with" in said


@pytest.mark.slow
def test_a_sweep_shares_one_control(place: Path):
    options = "distill=minilm,[logits,hidden]"
    words = ["teacher=runs/big", "name=sweep", *TINY, "model.layers=1", options]
    done = succeed("distill", "-m", *words, cwd=place)
    folders = [path.name for path in (place / "runs/sweep").iterdir() if path.is_dir()]
    assert sum(name.startswith("control-") for name in folders) == 1
    assert len(folders) == 3
    assert done.stdout.count("completed") >= 2


@pytest.mark.slow
def test_two_processes_and_a_stage_of_its_own(place: Path):
    two = ["runner=ddp", "runner.processes=2", "runner.device=cpu"]
    words = [word for word in TINY if word != "runner=cpu"]
    succeed("distill", "teacher=runs/big", "name=two", *words, *two, cwd=place)
    one, both = summary(place / "runs/small"), summary(place / "runs/two")
    assert both["gap_closed"].keys() == one["gap_closed"].keys()
    assert both["tokens"] == one["tokens"]


def test_a_stage_that_has_a_teacher_is_distilled():
    stages = {"big": ["mix=mlm"], "small": ["teacher=big", "model=bert_tiny"]}
    first, second = plan_stages(stages, Overrides(), Overrides(), Path("runs/whole"))
    assert (verb_of(first), verb_of(second)) == ("train", "distill")
    assert second.overrides[0] == "teacher=runs/whole/big"
