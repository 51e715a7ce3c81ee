"""G14: what decides a run may not change when it goes on, unless `resume.allow` names it; that is said and recorded."""

from __future__ import annotations

import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from command import summary, write_documents
from in_process import lmctl, succeed
from interrupted import arguments
from omegaconf import OmegaConf

from lmctl.cli.application import Application
from lmctl.core.errors import ConfigError
from lmctl.train.run_identity import GROUPS, changed_keys, check_names, refuse


@cache
def config(*words: str) -> dict[str, Any]:
    return OmegaConf.to_container(Application("train", [*words, "name=x"]).final_config(), resolve=True)  # type: ignore


OTHERS = {
    "data": ["data=text", "data.path=x"], "mix": ["mix=mlm"], "model": ["model=bert_mini"],
    "tokenizer": ["tokenizer=bpe"], "augment": ["augment=word_dropout"], "precision": ["precision=bf16"],
    "adversary": ["adversary=fgm"], "compression": ["compression=int8"], "optim": ["optim=sgd"],
    "schedule": ["schedule=wsd"], "average": ["average=ema"],
    "batch": ["batch.size=3"], "batch.seq_len": ["batch.seq_len=64"],
    "seed": ["seed=7"], "clip_norm": ["clip_norm=0.5"], "optim.lr": ["optim.lr=0.5"],
    "mix.tasks.corpus.objective": ["mix.tasks.corpus.objective.mask_rate=0.3"],
}  # fmt: skip
FREE = {"runner", "tracker", "distill"}
"""Groups that decide nothing, and distillation, which needs a teacher."""


def test_g14_every_group_is_tried():
    assert OTHERS.keys() >= GROUPS - FREE


@pytest.mark.parametrize("name", OTHERS)
def test_g14_a_change_is_refused_unless_it_is_named(name: str):
    before, now = config(), config(*OTHERS[name])
    changes = changed_keys(before, now)
    with pytest.raises(ConfigError, match=r"^resume: [\w.]+ was .* in this run and is .* now"):
        refuse(changes, [])
    refuse(changes, [name])
    check_names([name], before, now)


@pytest.mark.parametrize(("wrong", "right"), [("sead", "seed"), ("batch.sise", "batch.size"), ("optin", "optim")])
def test_g14_a_name_that_there_is_not_is_corrected(wrong: str, right: str):
    with pytest.raises(ConfigError, match=f"there is no setting '{wrong}'; did you mean {right}"):
        check_names([wrong], config(), config())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of six steps."""
    folder = tmp_path_factory.mktemp("home")
    words = arguments(write_documents(folder / "docs.txt"), "first", "budget.steps=6")
    succeed(*words, cwd=folder)
    return folder


CHANGES = {
    "another batch": (["batch.size=4"], "batch.size", None),
    "another rule": (["optim=sgd"], "optim", "the state of the optimiser starts anew"),
    "another scale": (["precision=fp16", "seed=3"], "precision,seed", "the state of the loss scale starts anew"),
}


@pytest.mark.parametrize(("change", "names", "said"), CHANGES.values(), ids=CHANGES.keys())
def test_g14_the_hint_of_a_refusal_lets_it_through(home: Path, change: list[str], names: str, said: str | None):
    name = f"run-{names}".replace(",", "-")
    shutil.copytree(home / "runs" / "first", home / "runs" / name)
    words = ["train", "resume=auto", f"name={name}", "budget.steps=8", *change]
    refused = lmctl(*words, cwd=home)
    assert refused.returncode == 2
    allow = re.search(r"if it is meant: (resume\.allow=\[.*\])$", refused.stderr.strip())
    assert allow is not None, refused.stderr
    assert allow[1] == f"resume.allow=[{names}]"
    done = succeed(*words, allow[1], cwd=home)
    assert "resume: allowed by resume.allow: " in done.stderr
    assert said is None or f"resume: {said}" in done.stderr
    (note,) = summary(home / "runs" / name)["resumed"]
    assert note["step"] == 6
    assert any(key.startswith(names.split(",")[0]) for key in note["changed"])
    assert summary(home / "runs" / name)["steps"] == 8
    again = succeed("train", "resume=auto", f"name={name}", "budget.steps=9", cwd=home)
    assert "allowed" not in again.stderr  # the run is what it has become


def test_g14_text_may_grow_if_the_tokenizer_stays(home: Path):
    shutil.copytree(home / "runs" / "first", home / "runs" / "grown")
    (home / "more.txt").write_text((home / "docs.txt").read_text() + "\n\nA new document appears.\nIt has two lines.\n")
    words = ["train", "resume=auto", "name=grown", "budget.steps=8", "data.path=more.txt"]
    refused = lmctl(*words, cwd=home)
    assert refused.returncode == 2
    own = "tokenizer=pretrained tokenizer.path=RUN"
    assert f"if it is meant: {own} (the run's own) resume.allow=[tokenizer,data]" in refused.stderr
    own = own.replace("RUN", "runs/first")
    done = succeed(*words, *own.split(), "resume.allow=[tokenizer,data]", cwd=home)
    assert "the text of corpus is not the one this run began with" in done.stderr
    assert summary(home / "runs" / "grown")["steps"] == 8


def test_g14_what_cannot_fit_is_not_offered(home: Path):
    words = ["train", "resume=auto", "name=first", "budget.steps=8", "model.hidden=64"]
    before = {path: path.stat().st_mtime_ns for path in (home / "runs" / "first").rglob("*")}
    refused = lmctl(*words, cwd=home)
    assert (refused.returncode, "resume.allow" in refused.stderr) == (2, False)
    refused = lmctl(*words, "resume.allow=[model]", cwd=home)
    assert refused.returncode == 2
    assert "the checkpoint does not fit what was changed (model.hidden)" in refused.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
