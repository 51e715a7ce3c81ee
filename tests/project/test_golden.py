"""scripts/golden.py: what differs is named, what the clock says is not, and every option of a run is in some cell."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
import torch
from command import ROOT
from omegaconf import OmegaConf
from safetensors.torch import save_file

from lmctl.config.groups import TrainConfig
from lmctl.config.table import groups_of
from lmctl.core.extras import TRACKERS

sys.path.append(str(ROOT / "scripts"))

from golden import Kept, closure, compare, needs, write
from goldens.cells import CELLS
from goldens.figures import of_run

CONF = ROOT / "conf"
NOT_RUN = {
    "precision/tf32": "needs a GPU; planned for one",
    "runner/gpu": "needs a GPU; planned for one",
    "runner/slurm": "needs a cluster; inside of its job it is runner=ddp",
    "runner/auto": "takes a GPU where there is one; runner=cpu is the rest of it",
    **dict.fromkeys(
        [f"tracker/{name}" for name in TRACKERS], "an extra, which not everybody has; a run with it is the same"
    ),
}
"""Options without a run, and why."""


def run_directory(folder: Path, weight: float = 1.0, loss: float = 2.0, speed: float = 3.0) -> Path:
    (folder / "model").mkdir(parents=True)
    save_file({"a": torch.tensor([weight, 0.0]), "b": torch.ones(2, 2)}, folder / "model" / "model.safetensors")
    lines = [{"step": step, "split": "train", "loss": loss, "tokens_per_s": speed} for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    (folder / "summary.json").write_text(json.dumps({"valid": {"loss": 1.5}, "machine": {"cpu": f"{speed}"}}))
    (folder / "environment.json").write_text(json.dumps({"fingerprints": {"corpus": "x"}, "cpu": f"{speed}"}))
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"speed": 9.0}, []),
        ({"loss": 2.5}, ["metrics: step 1 train loss: 2.0 before, 2.5 now; 1 more of 2"]),
        ({"weight": 1.0000001}, ["model.safetensors: a: "]),
    ],
    ids=["nothing", "the clock", "a figure", "a weight"],
)
def test_a_difference_is_named_and_the_clock_is_not_one(tmp_path: Path, change: dict[str, float], said: list[str]):
    write([Kept("mix/x", figures=of_run(run_directory(tmp_path / "base")))], tmp_path / "base.json")
    base = json.loads((tmp_path / "base.json").read_text())["cells"]["mix/x"]
    lines = compare(base, tmp_path / "base", Kept("mix/x", figures=of_run(run_directory(tmp_path / "new", **change))))
    assert len(lines) == len(said)
    assert all(line.startswith(begins) for line, begins in zip(lines, said, strict=True))


def test_what_failed_or_is_missing_differs(tmp_path: Path):
    good, bad = Kept("x", figures={"1 plan": {"line 1": "legal"}}), Kept("x", failed="exit code 2")
    assert compare(good.record, tmp_path, bad) == ["fails now"]
    assert compare(bad.record, tmp_path, good) == ["failed before"]
    assert compare(None, tmp_path, good) == ["is not in the base"]
    assert compare(good.record, tmp_path, Kept("x")) == ["1 plan: not kept now"]


def test_cells_come_after_what_they_read():
    names = list(CELLS)
    for name in names:
        assert all(names.index(other) < names.index(name) for other in needs(name)), name
    assert needs("distill/several") == ["teacher/gpt2", "mix/clm_gpt2"]
    assert closure(["distill/logits"]) == ["teacher/bert", "distill/logits"]


def test_every_option_of_a_run_is_in_some_cell():
    """A new option of a group wants a cell in scripts/goldens/cells.py, or a reason above."""
    lines = [shlex.split(line.removeprefix("kill ")) for lines in CELLS.values() for line in lines]
    given = [word.split("=", 1) for words in lines if words[0] in ("train", "distill") for word in words if "=" in word]
    named = {f"{group}/{option}" for group, value in given for option in value.strip("[]").split(",")}
    for mix in [OmegaConf.load(file) for file in sorted((CONF / "mix").glob("*.yaml")) if f"mix/{file.stem}" in named]:
        choices = [choice for choice in mix.defaults if not isinstance(choice, str)]
        named |= {f"objective/{option}" for choice in choices for key, option in choice.items() if "objective" in key}
    groups = groups_of(TrainConfig)
    options = {f"{file.parent.name}/{file.stem}": file for group in groups for file in (CONF / group).glob("*.yaml")}
    options |= {f"objective/{file.stem}": file for file in (CONF / "objective").glob("*.yaml")}
    kinds = {OmegaConf.load(options[name])._target_ for name in named & options.keys() if name.startswith("model/")}
    missing = {
        name
        for name, file in options.items()
        if name not in named and not (name.startswith("model/") and OmegaConf.load(file)._target_ in kinds)  # sizes
    }
    assert missing == set(NOT_RUN)
