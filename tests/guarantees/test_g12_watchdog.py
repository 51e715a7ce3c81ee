"""G12: a hang is reported, with the stacks of all threads, and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from command import SMALL, environment

WATCHED = """
import time
from pathlib import Path
from lmctl.core import progress
from lmctl.core.watchdog import Watchdog

def hangs_here():
    {work}

with Watchdog({seconds}, Path("stacks.txt"), computing={computing}):
    print("began", flush=True)
    hangs_here()
print("done")
"""
BEATS = "[(time.sleep(0.2), progress.beat()) for _ in range(8)]"
COMPUTES = "end = time.monotonic() + 1.6\n    while time.monotonic() < end: sum(range(9999))"


def started(folder, work: str, seconds: float | None = 0.8, computing: bool = False) -> subprocess.Popen[str]:
    script = WATCHED.format(work=work, seconds=seconds, computing=computing)
    return subprocess.Popen(
        [sys.executable, "-c", script], cwd=folder, env=environment(folder), text=True, stdout=-1, stderr=-1
    )


@pytest.mark.parametrize(
    ("work", "seconds", "computing", "ends"),
    [
        ("time.sleep(60)", 0.8, False, True),
        ("time.sleep(60)", 0.8, True, True),
        (COMPUTES, 0.8, False, True),
        (COMPUTES, 0.8, True, False),
        (BEATS, 0.8, False, False),
        ("time.sleep(1.6)", None, False, False),
    ],
    ids=["hangs", "hangs while reading", "loops", "computes while reading", "goes on", "unwatched"],
)
def test_g12_no_progress_ends_the_process(tmp_path, work, seconds, computing, ends):
    out, err = (process := started(tmp_path, work, seconds, computing)).communicate(timeout=60)
    assert process.returncode == (1 if ends else 0)
    assert ("done" in out) != ends
    for said in (err, (tmp_path / "stacks.txt").read_text() if ends else ""):
        assert ("hangs_here" in said) == ends
        assert ("watchdog_s=0.8" in said) == ends


def test_g12_a_process_that_was_stopped_goes_on(tmp_path):
    """Time in which the process does not run is no hang."""
    process = started(tmp_path, BEATS)
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(2.5)
    os.kill(process.pid, signal.SIGCONT)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, "done" in out) == (0, True)


def test_g12_a_run_whose_step_hangs(tmp_path):
    """As a user meets it: the stacks of every thread, the one that reads ahead included, and a run to go on with."""
    (tmp_path / "text.txt").write_text("\n\n".join("a b c d e f g h.\ni j k l m n o p." for _ in range(60)))
    script = """
import sys, threading
from lmctl.train.step import TrainStep
update = TrainStep.update
def hangs(step, done, counts, moment):
    if moment.window == 2:
        threading.Event().wait()
    return update(step, done, counts, moment)
TrainStep.update = hangs
from lmctl.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    words = ["train", *SMALL, "data.path=text.txt", "mix=mlm", "name=r", "budget.steps=4", "checkpoint.every=1"]
    words.append("kernels=torch")  # whose compilation may take longer than the watchdog waits
    done = subprocess.run(
        [sys.executable, "-c", script, *words, "watchdog_s=2"],
        cwd=tmp_path,
        env=environment(tmp_path / "cache"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    stacks = (tmp_path / "runs/r/stacks-rank-0.txt").read_text()
    for said in (done.stderr, stacks):
        assert "no progress for 2s (watchdog_s=2)" in said
        assert "in hangs" in said
        assert said.count("most recent call first") >= 2
    assert (tmp_path / "runs/r/checkpoints/step-00000002").is_dir()
