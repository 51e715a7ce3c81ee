"""G11: two runs never share a directory; jobs end with the sweep that started them, and import nothing from beside the
data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import in_process
import pytest
from command import SMALL, command, environment, summary, write_documents
from filelock import FileLock

from lmctl.core import child_process, signals
from lmctl.core.errors import ConfigError
from lmctl.core.paths import Paths
from lmctl.train import run_record
from lmctl.train.run_record import claim, locked

SWEEP = ["train", "-m", *SMALL, "mix=mlm", "data.path=docs.txt", "seed=1", "budget.steps=1000000", "name=sweep"]


def until(happened, seconds: float = 60) -> None:
    began = time.monotonic()
    while not happened():
        assert time.monotonic() - began < seconds
        time.sleep(0.1)


def test_g11_a_sweep_has_its_directory_to_itself_and_its_jobs_end_with_it(tmp_path):
    write_documents(tmp_path / "docs.txt")
    for name in ("copy", "torch"):  # what a stranger's folder may hold; Python looks there first under -m
        (tmp_path / f"{name}.py").write_text("open('imported', 'w').close()\n")
    folder, run = tmp_path / "runs" / "sweep", tmp_path / "runs" / "sweep" / "job"
    started = [sys.executable, "-P", *command(*SWEEP, "eval.every=1000000")[1:]]
    parent = subprocess.Popen(started, cwd=tmp_path, env=environment(tmp_path / "cache"), stdout=subprocess.PIPE)
    try:
        until(lambda: (run / "log.txt").exists() and "precision: proof" in (run / "log.txt").read_text())
        record = folder / "summary.json"
        before = record.read_bytes() if record.exists() else None
        second = in_process.lmctl(*SWEEP, "eval.every=1000000", cwd=tmp_path)
        assert second.returncode == 2
        assert "run_dir=runs/sweep: another run is writing there now" in second.stderr
        assert (record.read_bytes() if record.exists() else None) == before  # the loser writes nothing
    finally:
        parent.kill()
        parent.communicate()
    until(lambda: (run / "summary.json").exists())
    assert summary(run)["status"] == "stopped"
    assert (run / "checkpoints" / "latest").exists()
    assert not (tmp_path / "imported").exists()


def test_g11_a_job_waits_for_the_run_that_is_ending_in_its_directory(tmp_path, monkeypatch, capsys):
    with locked(Paths(tmp_path / "run")), pytest.raises(ConfigError, match="another run is writing there now"):
        claim(Paths(tmp_path / "run"))
    assert not (tmp_path / "run").exists()  # nothing was written into it
    monkeypatch.setattr(run_record, "is_child", lambda: True)
    (tmp_path / "run").mkdir()
    before = FileLock(Paths(tmp_path / "run").lock, thread_local=False)
    before.acquire()
    threading.Timer(0.5, before.release).start()
    claim(Paths(tmp_path / "run")).release()
    assert "waiting up to 30 s" in capsys.readouterr().err


def test_g11_every_child_is_started_in_one_way(monkeypatch):
    assert child_process.command("list") == [sys.executable, "-P", "-m", "lmctl", "list"]
    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.delenv(child_process.PARENT, raising=False)
    monkeypatch.setattr(sys, "path", ["a checkout", *sys.path])
    with child_process.in_environment():
        assert os.environ[child_process.PARENT] == str(os.getpid())
        assert os.environ["PYTHONPATH"] == "mine"
    assert child_process.PARENT not in os.environ
    root = str(Path(child_process.__file__).parents[2])
    monkeypatch.setattr(sys, "path", [root])  # python -m lmctl in a checkout that is not installed
    assert child_process.environment()["PYTHONPATH"] == f"{root}{os.pathsep}mine"


def test_g11_a_child_whose_parent_has_ended_already_does_not_begin(monkeypatch):
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    monkeypatch.setenv(child_process.PARENT, "1" if os.getppid() != 1 else "2")
    monkeypatch.setattr(signals.sys, "platform", "another")  # no prctl in the process of the tests
    try:
        with pytest.raises(signals.Interrupted):
            signals.install()
    finally:
        monkeypatch.delenv(child_process.PARENT)
        signals.install()
        for number, handler in before.items():
            signal.signal(number, handler)
