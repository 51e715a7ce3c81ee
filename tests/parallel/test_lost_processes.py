"""A worker, a node's group or a launcher that is killed or hangs: the rest ends in bounded time, nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from command import metrics
from nodes import Nodes, kill, one_node, two_folders, wait_for_step, weights, workers_of

STEPS = ["budget.steps=80", "checkpoint.every=5", "data.path=docs.txt"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of two nodes with the same text."""
    return two_folders(tmp_path_factory.mktemp("nodes"))


@pytest.fixture(scope="module")
def undisturbed(folders: list[Path]) -> Path:
    return one_node(folders[0], *STEPS, "runner.processes=2")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("lost", ["worker", "group", "launcher", "first launcher"])
def test_what_is_left_ends_and_the_run_goes_on_to_the_bit(folders: list[Path], undisturbed: Path, lost: str):
    run = folders[0].parent / lost.replace(" ", "-")
    nodes = Nodes(folders, *STEPS, f"run_dir={run}").start()
    wait_for_step(nodes, run, random.randrange(2, 10))
    time.sleep(random.random() / 2)
    launcher = nodes.launchers[0 if lost == "first launcher" else 1]
    (worker,) = workers_of(launcher)
    if lost == "group":
        kill(launcher.pid)
    else:
        os.kill(worker.pid if lost == "worker" else launcher.pid, signal.SIGKILL)
    ends = nodes.ended(limit=120)
    worker.wait(timeout=60)
    assert all(code for code, _ in ends), ends
    said = "".join(words for _, words in ends)
    assert "Traceback" not in said, said
    if "launcher" in lost:  # the workers are told, and save
        assert "everything is saved" in said
    else:
        assert "another process of this run has ended" in said
    again = Nodes(folders, *STEPS, f"run_dir={run}", "resume=auto").start().ended()
    assert [code for code, _ in again] == [0, 0], again
    assert metrics(run) == metrics(undisturbed)
    assert weights(run) == weights(undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_that_hangs_is_reported_by_the_others(folders: list[Path]):
    """The others wait for it in a collective operation, and say so with the stacks of their threads."""
    run = folders[0].parent / "hangs"
    nodes = Nodes(folders, "data.path=docs.txt", "budget.steps=100000", "checkpoint.every=5", "runner.timeout_s=6")
    nodes.words.append(f"run_dir={run}")
    nodes.start()
    wait_for_step(nodes, run, 6)
    (hung,) = workers_of(nodes.launchers[1])
    hung.suspend()
    try:
        assert nodes.launchers[0].wait(timeout=90) == 1
    finally:
        hung.resume()
    said = nodes.ended()[0][1]
    assert "no progress for 6s (runner.timeout_s=6): hung, and ended here" in said
    assert said.count("most recent call first") >= 2
    assert "all_reduce" in said or "run_backward" in said
    assert said.count("error: ") == 1, said
    assert (run / "stacks-rank-0.txt").is_file()
    assert list((run / "checkpoints").glob("step-*"))
