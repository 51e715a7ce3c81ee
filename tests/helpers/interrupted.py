"""Runs that are killed or stopped at given moments, and started again."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

from command import SMALL, command, environment, metrics, succeed, summary

LENGTH = ["budget.steps=60", "eval.every=20", "checkpoint.every=4", "resume=auto"]


def arguments(text: Path, name: str, *more: str) -> list[str]:
    return ["train", *SMALL, f"data.path={text}", f"name={name}", *LENGTH, *more]


def start(folder: Path, words: list[str]) -> subprocess.Popen[str] | None:
    """The command, once it trains; None if the run is complete."""
    process = subprocess.Popen(
        command(*words),
        cwd=folder,
        env=environment(folder / "cache"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("precision: proof"):
            return process
        assert not line.startswith("error"), line
        if " is complete (" in line:
            process.communicate()
            return None
    raise AssertionError("it ended before it trained")


def disturb(folder: Path, words: list[str], moments: list[tuple[float, signal.Signals]]) -> list[int]:
    """Start the command again and again, ending it with each signal after so many seconds of training, until the run
    is complete."""
    codes = []
    for seconds, number in moments:
        process = start(folder, words)
        if process is None:
            break
        time.sleep(seconds)
        if number == signal.SIGKILL:  # a launcher and its workers die together, as when a machine is taken away
            subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)
            for child in descendants(process.pid):
                child.kill()
            process.kill()
        else:
            process.send_signal(number)
        process.communicate()
        codes.append(process.returncode)
    return codes


def descendants(pid: int) -> list:
    import psutil

    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def ends_as_undisturbed(folder: Path, text: Path, more: list[str]) -> None:
    """A run of processes that is killed, stopped and gone on with ends with the bits of one that is left alone."""
    rng = random.Random(5)
    succeed(*arguments(text, "undisturbed", *more), cwd=folder)
    words = arguments(text, "killed", *more)
    codes = disturb(folder, words, [(rng.uniform(0.2, 1.5), signal.SIGKILL) for _ in range(2)])
    codes += disturb(folder, words, [(rng.uniform(0.2, 0.8), signal.SIGTERM)])
    assert any(codes)  # else nothing was disturbed
    succeed(*words, cwd=folder)
    same(folder, "undisturbed", "killed")


def same(folder: Path, one: str, other: str) -> None:
    assert metrics(folder / "runs" / one) == metrics(folder / "runs" / other)
    weights = [(folder / "runs" / name / "model" / "model.safetensors").read_bytes() for name in (one, other)]
    assert weights[0] == weights[1]
    assert summary(folder / "runs" / one)["valid"] == summary(folder / "runs" / other)["valid"]
