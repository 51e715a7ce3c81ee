"""G5: a disk that is full ends a run with one line that names the file, leaves nothing half-written, and the run goes
on to the same end when there is room again; where a checkpoint cannot be written see G2."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import TIMING
from damaged import make_run, own_plan
from full_disk import FULL, full_disk
from sessions import session
from small import prepared

from lmctl.config.schema import Budget
from lmctl.core.errors import DiskError
from lmctl.core.regular_files import open_to_append
from lmctl.train.loss_plot import Plotter


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return left(make_run(tmp_path_factory.mktemp("runs") / "whole"))


def left(run: Path) -> dict[str, Any]:
    """What a run left, without what the clock decides."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((run / "summary.json").read_text())
    return {
        "lines": [{key: value for key, value in line.items() if key not in TIMING} for line in lines],
        **{key: summary[key] for key in ("status", "steps", "valid", "model_sha256")},
    }


def goes_on(run: Path, whole: dict[str, Any]) -> None:
    """With room again: nothing half-written is there, and the end is that of an undisturbed run."""
    assert [path for path in run.rglob(".*") if path.name != ".lock"] == []
    session(run, own_plan(), prepared(), resume=any(run.glob("checkpoints/step-*"))).run()
    assert left(run) == whole


FILES = ("config.yaml", "environment.json", "summary.json", "step-00000002", "step-00000004", "model")


@pytest.mark.parametrize("name", [*FILES, "model-without-weights"])
def test_g05_a_file_that_cannot_be_written(whole: dict[str, Any], tmp_path: Path, name: str):
    run = tmp_path / "run"
    with full_disk(lambda call, path: path.endswith(f"/{name}") and call != "os.mkdir") as done:
        with pytest.raises(DiskError, match=f"^cannot write .*{name}.*: No space left on device") as caught:
            session(run, own_plan(), prepared()).run()
        assert "\n" not in str(caught.value)
        assert done
    goes_on(run, whole)


def test_g05_an_earlier_model_stays(tmp_path: Path):
    """Until a run that goes on has exported the new one."""
    run, longer = make_run(tmp_path / "run"), replace(own_plan(), budget=Budget(steps=6))
    before, times = (run / "model" / "model.safetensors").read_bytes(), iter(range(1000))
    with (
        full_disk(lambda call, path: path.endswith("/model") and next(times) == 0),
        pytest.raises(DiskError, match=r"^cannot write .*model: No space left"),
    ):
        session(run, longer, prepared(), resume=True).run()
    assert (run / "model" / "model.safetensors").read_bytes() == before
    session(run, longer, prepared(), resume=True).run()
    assert (run / "model" / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize("written", [0, 20], ids=["no byte", "half a line"])
@pytest.mark.parametrize("which", [1, 2, 3])
def test_g05_a_line_that_cannot_be_written(
    whole: dict[str, Any], tmp_path: Path, monkeypatch, which: int, written: int
):
    """The first opening cuts the file, each further one appends a line."""
    run, openings = tmp_path / "run", iter(range(1000))

    def opened(path: Path) -> Any:
        file = open_to_append(path)
        if next(openings) != which:
            return file
        with file:
            file.write(b"{" * written)
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr("lmctl.train.metrics_file.open_to_append", opened)
        with pytest.raises(DiskError, match=r"^cannot write .*metrics\.jsonl: No space left on device"):
            session(run, own_plan(), prepared()).run()
    goes_on(run, whole)


def test_g05_a_curve_that_cannot_be_written_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It ends no run, which has done all else by then."""
    run = tmp_path / "run"
    made = session(run, own_plan(), prepared())
    made.plotter = Plotter(made.paths, made.display.say)
    monkeypatch.setattr("lmctl.train.loss_plot.plot_losses", lambda *_: (_ for _ in ()).throw(FULL))
    assert made.run()["status"] == "completed"
