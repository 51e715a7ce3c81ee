"""G13: all ranks under torchrun write into the directory that rank 0 chose, and a fresh start goes on in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from command import SMALL, TORCHRUN, environment, summary, write_documents

LIMIT = 120
LENGTH = ["budget.steps=40", "checkpoint.every=2", "eval.every=null", "runner=ddp", "runner.device=cpu"]


def torchrun(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, *TORCHRUN, "-m", "lmctl", "train", *SMALL, "data.path=docs.txt", *LENGTH, *words]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment(folder / "cache", CUDA_VISIBLE_DEVICES=""),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_g13_two_ranks_without_a_name_make_one_run_and_go_on_in_it(tmp_path: Path):
    write_documents(tmp_path / "docs.txt")
    first = torchrun(tmp_path, "budget.steps=100000")
    deadline = time.monotonic() + LIMIT
    while not (saved := list(tmp_path.glob("runs/*/checkpoints/latest"))):
        assert first.poll() is None, first.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for process in psutil.Process(first.pid).children(recursive=True):
        os.kill(process.pid, signal.SIGKILL)
    first.kill()
    first.communicate()
    (run,) = {file.parent.parent for file in saved} | set((tmp_path / "runs").iterdir())
    newest = run / "checkpoints" / saved[0].read_text().strip()
    assert {"rank-0.pt", "rank-1.pt"} <= {file.name for file in newest.iterdir()}
    step = int(newest.name.removeprefix("step-"))
    again = torchrun(tmp_path, "resume=auto", f"run_dir={run}", f"budget.steps={step + 4}")
    said = again.communicate(timeout=LIMIT)[1]
    assert again.returncode == 0, said
    assert "resume: step-" in said
    assert summary(run)["steps"] == step + 4
    assert list((tmp_path / "runs").iterdir()) == [run]
