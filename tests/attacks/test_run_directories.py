"""Run directories of strangers: what is in them leads nowhere else, is never waited for, and ends in a plain error."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import share_kernels
from damaged import make_run
from in_process import lmctl
from small import prepared
from transformers import BertForPreTraining

from lmctl.core.errors import ConfigError
from lmctl.core.paths import Paths
from lmctl.core.regular_files import refuse_links
from lmctl.core.run_summary import RunSummary
from lmctl.jobs.job import Job
from lmctl.jobs.stages import recorded as recorded_stages
from lmctl.jobs.sweep import recorded as recorded_jobs
from lmctl.jobs.sweep_table import print_table
from lmctl.model.artifact.reader import Artifact
from lmctl.train.unfinished import model_in

STEP = "checkpoints/step-00000004"
FILES = ("config.yaml", "environment.json", "metrics.jsonl", "summary.json", ".lock", "log.txt", "eval.json")
FOLDERS = ("checkpoints", "model", "plots", ".model-partial-7")
INSIDE = (
    *(
        STEP,
        f"{STEP}/model.safetensors",
        "checkpoints/latest",
        "checkpoints/best",
        "checkpoints/.partial-step-00000006",
    ),
    *("checkpoints/model-without-weights", "model/model.safetensors", "model/config.json", "plots/loss.png"),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prepared()
    return make_run(tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of a run, and beside it what is precious to somebody."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("three years\n" * 500)
    (precious / "step-00000001").mkdir()
    return Path(shutil.copytree(whole, tmp_path / "run"))


def removed(path: Path) -> Path:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    return path


def link(path: Path, precious: Path) -> None:
    is_folder = path.is_dir() or not path.exists()
    removed(path).symlink_to(precious if is_folder else precious / "thesis.txt")


def dangling(path: Path, precious: Path) -> None:
    removed(path).symlink_to(precious / "new.txt")


def second_name(path: Path, precious: Path) -> None:
    os.link(precious / "thesis.txt", removed(path))


def fifo(path: Path, precious: Path) -> None:
    os.mkfifo(removed(path))


def folder(path: Path, precious: Path) -> None:
    removed(path).mkdir()


ATTACKS: list[tuple[Callable[[Path, Path], None], str]] = [
    *((act, name) for act in (link, dangling) for name in (*FILES, *FOLDERS, *INSIDE)),
    *((second_name, name) for name in ("metrics.jsonl", ".lock", "log.txt")),
    *((fifo, name) for name in (*FILES, *FOLDERS, *INSIDE)),
    *((folder, name) for name in FILES),
]


def contents(place: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(place.rglob("*"))}


@pytest.mark.parametrize(("act", "name"), ATTACKS, ids=[f"{act.__name__} {name}" for act, name in ATTACKS])
def test_nothing_in_a_run_directory_leads_elsewhere(run: Path, act: Any, name: str):
    act(run / name, run.parent / "precious")
    with pytest.raises(ConfigError, match=rf"run_dir=.*: {name} is "):
        refuse_links(Paths(run))


@pytest.mark.parametrize(
    ("act", "name"),
    [
        (link, "metrics.jsonl"),
        (link, "checkpoints"),
        (link, "plots/loss.png"),
        (second_name, "metrics.jsonl"),
        (fifo, "config.yaml"),
        (fifo, "summary.json"),
        (folder, "config.yaml"),
    ],
)
@pytest.mark.parametrize("words", [["resume=auto"], []], ids=["gone on with", "begun"])
def test_a_command_touches_nothing_elsewhere(run: Path, act: Any, name: str, words: list[str]):
    act(run / name, run.parent / "precious")
    if not words:  # a directory in which nothing has begun, but for the log of a sweep's job
        for entry in set(os.listdir(run)) - {name.partition("/")[0]}:
            removed(run / entry)
    share_kernels(run.parent / "cache")
    before = contents(run.parent)
    done = lmctl("train", f"run_dir={run}", "mix=mlm", "budget.steps=1", *words, cwd=run.parent)
    assert (done.returncode, done.stderr.count("\n")) in ((2, 1), (2, 2)), done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert contents(run.parent) == before


def test_a_run_directory_may_be_a_link_itself(run: Path):
    elsewhere = run.rename(run.parent / "elsewhere")
    run.symlink_to(elsewhere)
    (elsewhere / "notes").symlink_to(run.parent / "precious")  # somebody's own
    refuse_links(Paths(run))


@pytest.mark.parametrize("word", ["../../precious", "/etc", "..", "step-1", "x" * 500, ""])
@pytest.mark.parametrize("name", ["best", "latest"])
def test_a_name_of_a_checkpoint_leads_nowhere(run: Path, name: str, word: str):
    (run / "checkpoints" / name).write_text(word)
    with pytest.raises(ConfigError, match="there is no such checkpoint"):
        model_in(str(run / "checkpoints" / name), "model_path")


def test_no_code_is_trusted_because_a_run_says_so(run: Path, monkeypatch: pytest.MonkeyPatch):
    """A run without a model, whose precision is code that lies where the command is typed."""
    (run.parent / "evil.py").write_text("class Precision: ...\n")
    monkeypatch.syspath_prepend(run.parent)
    shutil.rmtree(run / "model")
    text = (run / "config.yaml").read_text()
    assert "lmctl.precision.fp32.Fp32" in text
    (run / "config.yaml").write_text("trusted: [evil]\n" + text.replace("lmctl.precision.fp32.Fp32", "evil.Precision"))
    with pytest.raises(ConfigError, match=r"evil\.Precision is outside the trusted packages"):
        model_in(str(run), "model_path")
    assert "evil" not in sys.modules


def test_weights_that_the_run_did_not_export_are_refused(run: Path):
    """Where the run's summary is beside them. Elsewhere they are somebody's own."""
    weights = run / "model" / "model.safetensors"
    assert not Artifact.at("model_path", str(run)).weights(BertForPreTraining)[1]
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    for place in (run, run / "model"):
        with pytest.raises(ConfigError, match=r"model\.safetensors is not what the run exported") as caught:
            Artifact.at("model_path", str(place)).weights(BertForPreTraining)
        assert str(run / "model") in str(caught.value.hint)
    (run / "model").rename(run.parent / "own")
    assert not Artifact.at("model_path", str(run.parent / "own")).weights(BertForPreTraining)[1]


ODD = {
    "nothing": b"", "text": b'"completed"', "a list": b"[1, [2]]", "nested": b"[" * 100_000, "binary": b"\xff\x00",
    "words": b'{"status": ["completed"], "steps": "many", "valid": [], "precision": 3, "gap_closed": "x"}',
    "numbers": b'{"status": 3, "steps": 1e400, "valid": {"loss": 1e999, "x": "y"}, "train": null}',
    "large": json.dumps({"valid": {"loss": 10**400}, "steps": -(10**400), "model_sha256": 7}).encode(),
    "stages": b'{"stages": {"a": 3}, "words": [3]}', "no words": b'{"stages": {}}',
    "jobs": b'[{"name": ["a"]}, 3, {"name": "a", "overrides": 3, "status": []}]',
}  # fmt: skip


@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
def test_an_odd_summary_is_as_good_as_none(tmp_path: Path, text: bytes, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "summary.json").write_bytes(text)
    (tmp_path / "eval.json").write_bytes(text)
    found = RunSummary.of(Paths(tmp_path))
    assert (found.status, found.steps, found.loss, found.bytes_per_parameter, found.model_sha256) == (None,) * 5
    assert found.train == found.gap_closed == {}
    assert recorded_stages(tmp_path) == {}
    job = Job("a", ["seed=1"], str(tmp_path))
    job.adopt(recorded_jobs(tmp_path).get("a"))
    assert job.status == "not started"
    job.status = "completed"
    print_table([job])
    assert "completed" in capsys.readouterr().out
