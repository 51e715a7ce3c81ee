"""Trackers get the figures of the record and a config without secrets, and can never hurt the run."""

from __future__ import annotations

import json
import sys
import threading
import time
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from canary import SECRET, TOKEN
from command import SMALL, write_documents
from in_process import run_here
from sessions import session
from small import plan, prepared, weights
from walked import classes, ids, keys_in

from lmctl.cli.main import main
from lmctl.config.schema import Budget, Checkpointing, Evaluation, Logging
from lmctl.core.paths import Paths
from lmctl.tracker.base import TrackedRun, Tracker
from lmctl.tracker.trackers import Trackers
from lmctl.train import tracking


@dataclass(frozen=True)
class Notes(Tracker):
    """Notes what it is told, and fails or hangs where it shall."""

    fails: str = ""
    runs: list[TrackedRun] = field(default_factory=list)
    told: list[tuple[dict[str, float], int]] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def _may_fail(self, what: str) -> None:
        self.threads.add(threading.get_ident())
        if self.fails == what:
            raise ConnectionError(f"https://me:{SECRET}@host does not answer\nnor does its twin")
        if self.fails == f"{what} hangs":
            time.sleep(60)

    def open(self, run: TrackedRun) -> Notes:
        self._may_fail("open")
        self.runs.append(run)
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self._may_fail("log")
        self.told.append((values, step))

    def close(self, opened: Any, status: str) -> None:
        self._may_fail("close")
        self.ends.append(status)


def tracked(folder: Path, *trackers: Tracker, steps: int = 4, resume: bool = False, config: Any = None) -> Any:
    """A short run with these trackers; what is said, and its weights."""
    often = {"log": Logging(every=1), "eval": Evaluation(every=2, rows=16), "checkpoint": Checkpointing(every=2)}
    to = {f"notes{number}": tracker for number, tracker in enumerate(trackers)}
    own = plan(**often, budget=Budget(steps=steps), **({"tracker": Trackers(to)} if to else {}))
    run = session(folder, own, prepared(), resume)
    run.config |= config or {}
    run.run()
    return [line for line in run.display.heard if "tracker" in line], weights(run.trainer)


def numbers(folder: Path) -> list[tuple[dict[str, float], int]]:
    """The numbers of the record, called as trackers call them."""
    lines = map(json.loads, Paths(folder).metrics.read_text().splitlines())
    return [
        ({f"{line['split']}/{k}": v for k, v in line.items() if k not in ("step", "split") and v is not None}, at)
        for line in lines
        if (at := line["step"]) is not None
    ]


def test_they_are_told_what_the_record_has(tmp_path: Path):
    one, other = Notes(), Notes()
    said, _ = tracked(tmp_path, one, other)
    assert said == []
    assert one.told == other.told == numbers(tmp_path)
    assert {"train/loss", "train/lr", "valid/loss", "valid/corpus/mlm_accuracy"} <= {k for v, _ in one.told for k in v}
    assert one.ends == ["completed"]
    assert one.threads.isdisjoint({threading.get_ident(), *other.threads})


def test_a_run_that_goes_on_is_the_same_run_to_them(tmp_path: Path):
    one, other, elsewhere = Notes(), Notes(), Notes()
    tracked(tmp_path / "a", one)
    tracked(tmp_path / "a", other, steps=6, resume=True)
    tracked(tmp_path / "b", elsewhere)
    assert [run.step for run in (*one.runs, *other.runs)] == [0, 4]
    assert one.runs[0].id == other.runs[0].id != elsewhere.runs[0].id
    assert [at for _, at in other.told if at > 4]


def test_an_id_of_a_stranger_is_not_taken(tmp_path: Path):
    Paths(tmp_path).tracked.write_text('{"id": "x\' or 1=1"}')
    notes = Notes()
    tracked(tmp_path, notes)
    assert len(notes.runs[0].id) == 32
    assert int(notes.runs[0].id, 16)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """The weights of the run without a tracker."""
    folder = tmp_path_factory.mktemp("undisturbed")
    _, trained = tracked(folder)
    assert not Paths(folder).tracked.exists()
    return trained


@pytest.mark.parametrize("fails", ["open", "log", "close", "log hangs"])
def test_none_of_them_can_hurt_the_run(
    fails: str, undisturbed: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tracking, "LAST_SECONDS", 0.1)
    sound = Notes()
    (warning,), trained = tracked(tmp_path / "a", Notes(fails), sound)
    assert warning.startswith("warning: tracker notes0: ")
    assert ("has not taken everything" if "hangs" in fails else "ConnectionError") in warning
    assert "\n" not in warning
    assert sound.told == numbers(tmp_path / "a")
    assert torch.equal(trained, undisturbed)


def test_nothing_secret_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    secret = {"a": "${oc.env:HF_TOKEN}", "b": [f"https://me:{SECRET}@host/x"], "c": TOKEN, "d": "${e.f}", "e": {"f": 1}}
    notes = Notes()
    tracked(tmp_path, notes, config=secret)
    (run,) = notes.runs
    assert SECRET not in str(run.config)
    assert TOKEN[8:] not in str(run.config)
    assert (run.config["a"], run.config["d"], run.config["e.f"]) == ("${oc.env:HF_TOKEN}", 1, 1)
    assert run.config["model.hidden"] == 32


def test_a_file_sends_nothing_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "conf" / "recipe" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    target = "_target_: lmctl.tracker.mlflow.MLflow, uri: 'https://evil'"
    theirs = f"tracker: {{_target_: lmctl.tracker.trackers.Trackers, to: {{mlflow: {{{target}}}}}}}\n"
    for text in (theirs, "tracker: mlflow\n"):
        mine.write_text(f"# @package _global_\n{text}")
        assert main(["train", "--config-dir", "conf", "recipe=mine", "name=x", "--cfg", "job"]) == 2
        assert "error: tracker: where figures are sent is said on the command line" in capsys.readouterr().err
    assert main(["train", "name=x", "--cfg", "job"]) == 0
    plain = capsys.readouterr().out
    (tmp_path / "config.yaml").write_text(plain.replace("tracker:\n  _target_: lmctl.tracker.none.NoTracker\n", theirs))
    assert "evil" in (tmp_path / "config.yaml").read_text()
    assert main(["train", "--from", "config.yaml", "name=x", "--cfg", "job"]) == 0
    assert capsys.readouterr().out == plain


def test_a_run_that_goes_on_without_its_tracker_says_so(tmp_path: Path):
    tracked(tmp_path, Notes())
    said, _ = tracked(tmp_path, steps=6, resume=True)
    assert said == ["tracker: none now; name the one of before to go on there: tracker=..."]


def test_several_are_composed_into_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Whether or not the libraries that they need are installed, which `require` looks at."""
    monkeypatch.setattr("lmctl.config.build.require", lambda *_: None)
    words = ["tracker=[tensorboard,mlflow]", "tracker.to.mlflow.experiment=mine", "name=x"]
    assert main(["train", *words, "--cfg", "job", "--package", "tracker.to"]) == 0
    composed = capsys.readouterr().out
    assert "experiment: mine" in composed
    assert "dir: null" in composed


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_one_that_is_not_installed_is_refused(name: str, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setitem(sys.modules, name, None)
    assert main(["train", f"tracker={name}"]) == 2
    said = capsys.readouterr().err
    assert f"needs {name}, which is not installed\n  pip install 'lmctl[{name}]'" in said


class Opened:
    """Stands for any tracker of Accelerate: notes what it is made with, and what it is asked."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self.made, self.asked = str((given, named)), list[Any]()

    @property
    def tracker(self) -> Opened:
        return self

    def start(self) -> None: ...

    def add_text(self, *given: Any) -> None:
        self.asked.append(given)

    store_init_configuration = finish = add_text


class Tool(types.ModuleType):
    """Stands for wandb and mlflow; `known`: the runs that a search finds."""

    known: tuple[Any, ...] = ()

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.asked: list[Any] = []

    def note(self, *given: Any, **named: Any) -> bool:
        self.asked.append((given, named))
        return False

    set_tracking_uri = end_run = login = note

    def search_runs(self, **named: Any) -> list[Any]:
        self.note(**named)
        return list(self.known)

    def Settings(self, **named: Any) -> str:
        return str(named)


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tool]:
    """None of the tools is asked, whether it is installed or not."""
    found = {name: Tool(name) for name in ("wandb", "mlflow")}
    for name, tool in found.items():
        monkeypatch.setitem(sys.modules, name, tool)
    for name in ("TensorBoard", "WandB", "MLflow", "Trackio"):
        monkeypatch.setattr(f"accelerate.tracking.{name}Tracker", Opened, raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return found


KEYS = {
    ("TensorBoard", "dir"): "elsewhere",
    ("WandB", "project"): "mine",
    ("WandB", "entity"): "ours",
    ("WandB", "mode"): "online",
    ("MLflow", "experiment"): "mine",
    ("MLflow", "uri"): "sqlite:///elsewhere.db",
    ("Trackio", "project"): "mine",
    ("Trackio", "space"): "me/mine",
}
RUN = TrackedRun("0" * 32, "a/b", Path("runs/a/b"), {"optim.lr": 0.1, "seed": 1}, 0)


def test_no_key_is_forgotten():
    assert set(KEYS) == keys_in("tracker") - {("Trackers", "to")}


@pytest.mark.parametrize("key", KEYS, ids=ids)
def test_every_key_reaches_the_tool(key: tuple[str, str], tools: dict[str, Tool]):
    name, field = key

    def asked(**settings: Any) -> str:
        before = {tool: len(one.asked) for tool, one in tools.items()}
        opened = classes("tracker")[name](**settings).open(RUN)
        return opened.made + str([one.asked[before[tool] :] for tool, one in tools.items()])

    assert KEYS[key] not in asked()
    assert KEYS[key] in asked(**{field: KEYS[key]})


def test_wandb_is_offline_without_a_key_and_sends_nothing_by_itself(
    tools: dict[str, Tool], monkeypatch: pytest.MonkeyPatch
):
    wandb = classes("tracker")["WandB"]()
    made = wandb.open(RUN).made
    assert "'mode': 'offline'" in made
    assert "'resume': 'allow'" in made
    assert RUN.id in made
    for private in ("'disable_git': True", "'save_code': False", "'console': 'off'", "'x_disable_meta': True"):
        assert private.replace("'", "\\'") in made or private in made
    monkeypatch.setattr(tools["wandb"], "login", lambda **named: True)
    assert "'mode': 'online'" in wandb.open(RUN).made
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert "'mode': 'disabled'" in wandb.open(RUN).made


def test_mlflow_finds_its_run_and_leaves_its_parameters_as_they_are(tools: dict[str, Tool]):
    mlflow = classes("tracker")["MLflow"]()
    assert mlflow.open(RUN).asked == [({"optim.lr": 0.1, "seed": 1},)]
    known = types.SimpleNamespace(
        info=types.SimpleNamespace(run_id="theirs"), data=types.SimpleNamespace(params={"seed": "1"})
    )
    tools["mlflow"].known = (known,)
    opened = mlflow.open(RUN)
    assert "'run_id': 'theirs'" in opened.made
    assert opened.asked == [({"optim.lr": 0.1},)]
    for status, theirs in (("completed", "FINISHED"), ("stopped", "KILLED"), ("failed", "FAILED")):
        mlflow.close(opened, status)
        assert tools["mlflow"].asked[-1] == ((theirs,), {})


Points = dict[tuple[str, int], float]
"""What a tool has of each figure at each step; the last that it was told counts."""


def of_tensorboard(folder: Path) -> Points:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {(tag, event.step): event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}


def of_mlflow(folder: Path) -> Points:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder.parent.parent}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'lmctl'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["model.hidden"] == "32"
    return {(tag, m.step): m.value for tag in run.data.metrics for m in client.get_metric_history(run.info.run_id, tag)}


def of_trackio(folder: Path) -> Points:
    from trackio.sqlite_storage import SQLiteStorage

    (name,) = SQLiteStorage.get_runs("lmctl")
    logs = SQLiteStorage.get_logs("lmctl", name)
    return {(tag, at["step"]): value for at in logs for tag, value in at.items() if "/" in tag}


def of_wandb(folder: Path) -> Points:
    """Offline files: a log of records as LevelDB writes them, each a message of wandb's own."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: Points = {}
    files = sorted((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert files
    assert len({file.name for file in files}) == 1  # one run, by its id
    for file in files:
        data, at, whole = file.read_bytes(), 7, b""
        while at + 7 <= len(data):
            if 32768 - at % 32768 < 7:
                at += 32768 - at % 32768
                continue
            size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
            whole, at = whole + data[at + 7 : at + 7 + size], at + 7 + size
            if kind in (1, 4):  # whole, or the last part of one
                record, whole = Record.FromString(whole), b""
                items = {item.nested_key[0] if item.nested_key else item.key: item for item in record.history.item}
                if record.HasField("history"):
                    step = json.loads(items["_step"].value_json) if "_step" in items else record.history.step.num
                    values = {k: json.loads(item.value_json) for k, item in items.items() if "/" in k}
                    found |= {(tag, step): value for tag, value in values.items()}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "trackio", "wandb"])
def test_the_tool_reads_back_what_was_sent(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By its own reader, also after the run went on, and one that was stopped before it."""
    monkeypatch.setattr(tracking, "LAST_SECONDS", 120.0)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    pytest.importorskip(name)
    text = write_documents(tmp_path / "docs.txt")
    words = ["train", *SMALL, f"data.path={text}", f"tracker={name}", "schedule=constant", "checkpoint.every=2"]
    said = run_here(*words, "budget.steps=4", "log.every=1", "name=a", cwd=tmp_path)
    said += run_here(*words, "budget.steps=6", "log.every=1", "name=a", "resume=auto", cwd=tmp_path)
    assert "warning: tracker" not in said
    folder = tmp_path / "runs" / "a"
    read = {"tensorboard": of_tensorboard, "mlflow": of_mlflow, "trackio": of_trackio, "wandb": of_wandb}[name]
    sent = {(tag, at): value for values, at in numbers(folder) for tag, value in values.items()}
    assert max(at for _, at in sent) == 6
    assert read(folder) == {key: pytest.approx(value, rel=1e-6) for key, value in sent.items()}
