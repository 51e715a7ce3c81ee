"""Stages: models trained in turn by one command, the recipes that do so, and a sweep whose jobs are real runs."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import command
import pytest
from command import SMALL, write_documents
from in_process import lmctl, succeed
from omegaconf import OmegaConf

from lmctl.cli.main import main
from lmctl.config.build import check
from lmctl.config.comments import first_comment
from lmctl.config.compose import Composer, conf_dir
from lmctl.config.overrides import Overrides
from lmctl.core.errors import ConfigError, Exit
from lmctl.jobs.job import Job, exit_code_of
from lmctl.jobs.stages import plan_stages

RECIPES = sorted(path.stem for path in (conf_dir() / "recipe").glob("*.yaml"))
STAGES = {
    "first": ["mix=mlm", "data.path=a.txt", "seed=1"],
    "second": ["mix=classify", "init_from=first", "budget.steps=5"],
}


def planned(
    stages: dict[str, Any] = STAGES, typed: tuple[str, ...] = (), special: tuple[str, ...] = ()
) -> dict[str, list[str]]:
    return {
        job.name: job.overrides
        for job in plan_stages(stages, Overrides.typed(typed), Overrides.typed(special), Path("runs/whole"))
    }


def test_what_is_typed_holds_for_every_stage_or_for_one_and_wins():
    """And an earlier stage becomes its directory."""
    kept, own = ["recipe=mine", "budget.steps=9"], ["name=x", "run_dir=y", "resume=auto"]  # those of the whole
    assert planned(typed=(*kept, *own), special=("stages.first.seed=2", "stages.second.optim.lr=1e-4")) == {
        "first": ["mix=mlm", "data.path=a.txt", *kept, "seed=2", "stage=first"],
        "second": ["mix=classify", "init_from=runs/whole/first", *kept, "optim.lr=1e-4", "stage=second"],
    }


def test_mistakes_in_stages_are_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="neither an earlier stage nor a model"):
        planned({"first": ["init_from=second"], "second": []})
    assert planned({"first": [f"init_from={tmp_path}"]})["first"][0] == f"init_from={tmp_path}"
    with pytest.raises(ConfigError, match="must be a list"):
        planned({"first": {"mix": "mlm"}})
    with pytest.raises(ConfigError, match=r"there is no stage 'frist'; did you mean first\?"):
        planned(special=("stages.frist.seed=2",))


@pytest.mark.parametrize("dies", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_job_that_a_passed_on_signal_kills_was_interrupted(tmp_path: Path, dies: signal.Signals):
    """Whether it had its handlers already, or still."""
    job = Job("control", [], str(tmp_path))
    sleep = f"import signal, time; signal.signal({dies:d}, signal.SIG_DFL); time.sleep(60)"
    job.start([sys.executable, "-S", "-c", sleep], {})
    time.sleep(1)
    job.send(dies)
    job.wait()
    assert (job.code, job.status, exit_code_of(job)) == (-dies, "stopped", Exit.INTERRUPTED)


def own_recipe(folder: Path, *lines: str) -> list[str]:
    (folder / "conf" / "recipe").mkdir(parents=True)
    text = "\n".join(["# @package _global_", "# Mine", *lines])
    (folder / "conf" / "recipe" / "mine.yaml").write_text(text + "\n")
    return ["train", "--config-dir", "conf", "recipe=mine", "name=whole", "runner=cpu"]


def test_a_wrong_stage_is_refused_before_the_first_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = own_recipe(tmp_path, "stages:", "  a: [mix=mlm]", "  b: [mix=classify]")
    assert main([*words, "stages.b.optim.lrr=1"]) == 2
    assert "unknown key 'optim.lrr'; did you mean optim.lr?" in capsys.readouterr().err
    assert main([*words, "stages.c.seed=1"]) == 2
    assert "there is no stage 'c'; there are: a, b" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_compose_and_say_what_they_are(name: str):
    file = conf_dir() / "recipe" / f"{name}.yaml"
    assert 20 < len(first_comment(file.read_text(encoding="utf-8"))) <= 120
    composer = Composer("train")
    cfg = composer.task([f"recipe={name}", "name=given"])
    check(cfg, composer.schema)
    stages: Any = OmegaConf.to_container(cfg.stages)
    for job in plan_stages(stages, Overrides.typed([f"recipe={name}"]), Overrides(), Path("runs/given")):
        words = [*job.overrides, "name=given"]
        if any(word.startswith("init_from=") for word in words):
            words += ["model=pretrained", "tokenizer=pretrained", "tokenizer.path=given"]
        check(Composer("train").task(words), composer.schema)


def test_pretrained_then_tuned_in_one_command_that_goes_on(tmp_path: Path):
    write_documents(tmp_path / "text.txt")
    rows = "\n".join(f"{'the cat sees' if n % 2 else 'a dog likes'} {n % 7}\t{n % 2}" for n in range(60))
    (tmp_path / "rows.tsv").write_text("text\tlabel\n" + rows + "\n")
    words = own_recipe(
        tmp_path,
        "batch: {size: 8, seq_len: 32}",
        "log: {every: 2}",
        "stages:",
        "  pretrain: [mix=mlm, data=text, data.path=text.txt, tokenizer.vocab_size=300, budget.steps=4]",
        "  tune: [init_from=pretrain, mix=classify, data=table, data.path=rows.tsv, data.label=label, budget.steps=3]",
    )
    done = lmctl(*words, "stages.tune.data.path=missing.tsv", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "stage tune did not complete" in done.stderr
    done = command.succeed(*words, cwd=tmp_path)  # stages speak for themselves
    assert "[1/2] stage pretrain: already completed" in done.stdout
    assert "init_from: loaded" in done.stderr
    whole = json.loads((tmp_path / "runs" / "whole" / "summary.json").read_text())
    assert whole["status"] == "completed"
    assert [whole["stages"][name]["summary"]["steps"] for name in ("pretrain", "tune")] == [4, 3]
    assert "classify/label_accuracy" in whole["valid"]
    again = succeed("train", "resume=auto", "run_dir=runs/whole", "--config-dir", "conf", cwd=tmp_path)
    assert again.stdout.count("already completed") == 2


def test_a_real_sweep(tmp_path: Path):
    """Two runs of a few steps, in processes of their own; then the same command again."""
    text = write_documents(tmp_path / "text.txt")
    line = ["train", "-m", *SMALL, f"data.path={text}", "budget.steps=2", "seed=1,2", "name=real"]
    first = lmctl(*line, cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stderr == ""
    jobs = json.loads((tmp_path / "runs/real/summary.json").read_text())
    assert [(job["name"], job["status"], job["summary"]["steps"]) for job in jobs] == [
        ("seed=1", "completed", 2),
        ("seed=2", "completed", 2),
    ]
    assert jobs[0]["summary"]["valid"]["loss"] != jobs[1]["summary"]["valid"]["loss"]
    again = lmctl(*line, cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout.count("already completed") == 2
