"""Exporting a model from a checkpoint: the same files that the end of the run would have written."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from omegaconf import OmegaConf
from sessions import session
from small import plan, prepared
from small_tasks import TASKS, small_task, two_tasks
from small_teachers import MODELS, teacher

from lmctl.config.schema import Budget, Evaluation
from lmctl.core.errors import ConfigError
from lmctl.inference.load import model_folder
from lmctl.model.pretrained import Pretrained
from lmctl.plan import Plan
from lmctl.precision.bf16_pure import Bf16Pure
from lmctl.precision.fp32 import Fp32
from lmctl.precision.int8_full import Int8Full
from lmctl.precision.int8_lora import Int8Lora
from lmctl.precision.int8_weights import Int8Weights
from lmctl.precision.nf4_lora import Nf4Lora
from lmctl.train import unfinished
from lmctl.train.prepare import Prepared

SHORT: dict[str, Any] = {"budget": Budget(steps=2), "eval": Evaluation(every=1, rows=4)}
OBJECTIVES = {"modernbert": "mlm", "llama": "clm", "bilstm": "class", "rnn_mt": "translate"}


STORED = (Int8Weights(), Int8Full(), Bf16Pure(rounding="kahan"))
RUNS: dict[str, Callable[..., tuple[Plan, Prepared]]] = {
    **{task: partial(small_task, task) for task in TASKS},
    **{model: partial(small_task, task, model=MODELS[model]) for model, task in OBJECTIVES.items()},
    **{type(stored).__name__: partial(small_task, "mlm", precision=stored) for stored in STORED},
    "a second head": two_tasks,
}
"""Every objective, the other families, stored weights, and two tasks."""


@pytest.mark.parametrize("kind", RUNS)
def test_a_checkpoint_is_the_model_that_the_end_of_the_run_exports(tmp_path, kind):
    """Which is taken away, so that the checkpoint is exported."""
    run, kept = tmp_path / "run", tmp_path / "kept"
    session(run, *RUNS[kind](**SHORT)).run()
    shutil.move(run / "model", kept)
    made = Path(model_folder(str(run)))
    assert made == run / "checkpoints" / "step-00000002" / "model"
    found, names = (
        {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"README.md"}
        for folder in (made, kept)
    )
    assert found == names
    for name in names:
        one, other = ((folder / name).read_bytes() for folder in (made, kept))
        if name.endswith("config.json"):
            assert json.loads(one) == json.loads(other), name
        else:
            assert one == other, name


@pytest.mark.parametrize("precision", [Fp32(), Int8Lora(), Nf4Lora()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("task", ["mlm", "class"])
def test_adapters(tmp_path, precision, task, monkeypatch):
    """They are merged; what the run began with may be gone."""
    monkeypatch.setattr(Nf4Lora, "least_decibel", 5.0)  # so small a model is rounded badly
    place = teacher(tmp_path, "bert", "mlm")
    own, text = small_task(task, **SHORT)
    own = replace(own, model=Pretrained(place, lora_rank=4, lora_alpha=8.0), precision=precision)
    session(tmp_path / "run", own, text).run()
    shutil.rmtree(place)
    shutil.move(tmp_path / "run" / "model", tmp_path / "kept")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "peft", None)
        with pytest.raises(ConfigError, match="run needs peft, which is not installed"):
            model_folder(str(tmp_path / "run"))
    made = Path(model_folder(str(tmp_path / "run")))
    for name in ("model.safetensors", "tokenizer.json"):
        assert (made / name).read_bytes() == (tmp_path / "kept" / name).read_bytes()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run without its model/, whose best checkpoint is not its newest."""
    folder = tmp_path_factory.mktemp("unfinished") / "run"
    session(folder, plan(budget=Budget(steps=3), eval=Evaluation(every=1, rows=4)), prepared()).run()
    shutil.rmtree(folder / "model")
    (folder / "checkpoints" / "best").write_text("step-00000002\n")
    return folder


@pytest.fixture
def copy(run, tmp_path) -> Path:
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def test_which_checkpoint(copy, capsys):
    checkpoints = copy / "checkpoints"
    for name, step in {"": 3, "checkpoints/best": 2, "checkpoints/latest": 3, "checkpoints/step-00000002": 2}.items():
        assert model_folder(str(copy / name)) == str(checkpoints / f"step-{step:08d}" / "model")
    assert "step-00000003, the newest checkpoint; the run is not finished" in capsys.readouterr().err
    config = OmegaConf.load(copy / "config.yaml")
    config.early_stop.patience = 2
    OmegaConf.save(config, copy / "config.yaml")
    assert model_folder(str(copy)) == str(checkpoints / "step-00000002" / "model")


def test_settings_that_name_models(copy):
    """Those of `lmctl train` and `distill` name checkpoints afterwards, which the record then has."""
    tokenizer = {"_target_": "lmctl.tokenizer.pretrained.Pretrained", "path": "${init_from}"}
    table = {"_target_": "lmctl.data.table.Table", "path": str(copy)}  # no model, whatever lies there
    tree = {"init_from": str(copy), "teacher": [str(copy), "gpt2"], "tokenizer": tokenizer, "data": table, "x": "???"}
    found = OmegaConf.to_container(unfinished.with_models(OmegaConf.create(tree)), resolve=False)
    newest = str(copy / "checkpoints" / "step-00000003")
    assert found == tree | {"init_from": newest, "teacher": [newest, "gpt2"]}
    assert Pretrained(newest).place == newest + "/model"


def test_damage_is_passed_over(copy):
    with open(copy / "checkpoints" / "step-00000003" / "model.safetensors", "r+b") as handle:
        handle.seek(-1, os.SEEK_END)
        handle.write(b"\xff")
    assert "step-00000002" in model_folder(str(copy))
    with pytest.raises(ConfigError, match="damaged"):
        model_folder(str(copy / "checkpoints" / "step-00000003"))
    assert not list((copy / "checkpoints").glob("broken-*"))  # who only looks puts nothing aside


def test_nothing_there(copy):
    with pytest.raises(ConfigError, match="no such checkpoint"):
        model_folder(str(copy / "checkpoints" / "step-00000099"))
    shutil.rmtree(copy / "checkpoints" / "model-without-weights")
    with pytest.raises(ConfigError, match="earlier lmctl"):
        model_folder(str(copy))
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(ConfigError, match="no checkpoint yet") as error:
        model_folder(str(copy))
    assert "resume=auto" in str(error.value.hint)


def test_a_run_that_may_not_be_written_to(copy, monkeypatch, tmp_path):
    monkeypatch.setenv("LMCTL_CACHE", str(tmp_path / "cache"))
    mkdir = Path.mkdir

    def refused(self: Path, *arguments, **named) -> None:
        if copy in self.parents:
            raise PermissionError(13, "Permission denied", str(self))
        mkdir(self, *arguments, **named)

    monkeypatch.setattr(Path, "mkdir", refused)
    first, second = model_folder(str(copy)), model_folder(str(copy))
    assert first == second
    assert Path(first).is_relative_to(tmp_path / "cache")
    assert (Path(first) / "model.safetensors").is_file()


def test_a_run_that_is_going_on(copy, monkeypatch, tmp_path, capsys):
    """It removes old checkpoints: one that goes while it is looked at is no error, and what is in use is kept."""
    monkeypatch.setenv("LMCTL_CACHE", str(tmp_path / "cache"))
    checkpoints, export = copy / "checkpoints", unfinished._export

    def pruned(checkpoint: Path, *arguments) -> None:
        if checkpoint.name == "step-00000003":  # there is a newer one by now
            newer = checkpoint.rename(checkpoints / "step-00000004")
            manifest = json.loads((newer / "manifest.json").read_text())
            (newer / "manifest.json").write_text(json.dumps(manifest | {"step": 4}))
        export(checkpoint, *arguments)

    monkeypatch.setattr(unfinished, "_export", pruned)
    with FileLock(copy / ".lock"):
        found = Path(model_folder(str(copy)))
    assert "step-00000004, the newest checkpoint; the run is still going on" in capsys.readouterr().err
    shutil.rmtree(checkpoints)
    assert (found / "model.safetensors").is_file()


def test_half_an_export_is_none(copy, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lmctl.model.artifact.writer.write_weights", fail)
        with pytest.raises(Exception, match="No space left"):
            model_folder(str(copy))
    assert not list((copy / "checkpoints" / "step-00000003").glob("*model-*"))
    assert model_folder(str(copy)).endswith("model")
