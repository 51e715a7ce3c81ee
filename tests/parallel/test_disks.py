"""Nodes with a disk each: the run directory of node 0 has the whole run, and all go on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import disk_workers
import pytest
from command import metrics
from nodes import Nodes, kill, one_node, two_folders, wait_for_step, weights

from lmctl.core.files import digest
from lmctl.train.checkpoint_reader import FileEntry, Manifest

APART = ["runner.shared_run_dir=false", "data.path=docs.txt", "run_dir=runs/r"]


def test_files_of_another_disk_are_sent_to_the_first(both: list[dict[str, Any]]):
    first, second = (both[0]["folder"] / "disks" / f"node-{rank}" / "sent" for rank in range(2))
    for name, size in disk_workers.SIZES.items():
        assert (first / name).stat().st_size == size
        assert digest(first / name) == digest(second / name)
    assert [rank["disks"]["sent"]["collected"] for rank in both] == ["", ""]


def test_a_file_that_cannot_be_sent_is_told_and_holds_nobody_up(both: list[dict[str, Any]]):
    first, second = (rank["disks"]["sent"] for rank in both)
    assert (first["unreadable"], second["unreadable"]) == ("OSError", "FileNotFoundError")
    assert (first["unwritable"], second["unwritable"]) == ("FileExistsError", "")
    assert (first["fetched"], second["fetched"]) == ("", "FileExistsError")


def test_an_error_of_one_process_is_raised_in_all(both: list[dict[str, Any]]):
    error = {"message": "rank 1: docs.txt: not there", "hint": "a hint", "everywhere": True}
    assert [rank["disks"]["told"] for rank in both] == [error, error]


def test_a_checkpoint_of_two_disks_is_whole_on_the_first_one(both: list[dict[str, Any]]):
    folder = both[0]["folder"] / "disks" / "node-0" / "checkpoints"
    manifest = Manifest.read(folder / "step-00000001")
    assert manifest.files.keys() == {"rank-0.pt", "rank-1.pt", "state.pt", "model.safetensors"}
    for number, found in enumerate(rank["disks"]["saved"] for rank in both):
        assert (found["weights"] == 2).all()
        assert (found["own"] == number).all()
        assert found["elsewhere"] == bool(number)
        assert found["other"] == (not number), "a disk is sent what its own processes need"
        assert found["damaged"] == "Damaged"
    assert both[1]["disks"]["saved"]["left"] == []


def test_a_disk_is_sent_what_its_processes_need():
    names = ["model-0-of-2.safetensors", "state.pt", "rank-0.pt", "rank-1.pt", "rank-2.pt", "rank-3.pt"]
    manifest = Manifest(5, dict.fromkeys(names, FileEntry(0, "")))
    assert manifest.needed([2, 3], world=4) == [*names[:2], *names[4:]]
    assert manifest.needed([1], world=2) == names, "the states that others have carried"


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return two_folders(tmp_path)


RUNNERS = {
    "ddp": ["compression=topk_int8"],
    "fsdp": ["runner=fsdp", "runner.device=cpu", "checkpoint.background=true"],
    "diloco": ["runner=diloco", "runner.device=cpu", "runner.every=3"],
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("runner", RUNNERS)
def test_a_node_with_a_disk_of_its_own_is_lost_and_the_run_goes_on_to_the_bit(folders: list[Path], runner: str):
    own = [*RUNNERS[runner], "budget.steps=60", "checkpoint.every=5"]
    first, second = (folder / "runs" / "r" for folder in folders)
    nodes = Nodes(folders, *own, *APART).start()
    wait_for_step(nodes, first, 12)
    kill(nodes.launchers[1].pid)
    assert all(code for code, _ in nodes.ended(limit=120))
    assert not list(second.glob("checkpoints/step-*"))
    # Other words are not needed: each node has the run's config.
    again = Nodes(folders, "resume=auto", "run_dir=runs/r", bare=True).start().ended()
    assert [code for code, _ in again] == [0, 0], again
    assert "resume: step-" in again[0][1]
    assert {path.name for path in second.rglob("*")} <= {"config.yaml", ".lock", "checkpoints"}
    undisturbed = one_node(folders[0], *own, "data.path=docs.txt", "runner.processes=2")
    assert metrics(first) == metrics(undisturbed)
    assert weights(first) == weights(undisturbed)
