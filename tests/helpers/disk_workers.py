"""Two processes as nodes with a disk of their own each: files and checkpoints that cross between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lmctl.core.errors import DataError, LmctlError
from lmctl.data.files import BadFile
from lmctl.parallel import disks
from lmctl.parallel.disks import Disks
from lmctl.parallel.processes import Processes
from lmctl.train.checkpoint import Checkpoints
from lmctl.train.checkpoint_copies import at_hand
from lmctl.train.checkpoint_reader import read

SIZES = {"empty": 0, "small": 3, "exact": 200, "long": 1_001}
"""Bytes of the files that are sent, in chunks of 100."""


def found(processes: Processes, folder: Path) -> dict[str, Any]:
    """What came of sending files and of saving and loading a checkpoint."""
    folder = folder / "disks" / f"node-{processes.rank}"
    folder.mkdir(parents=True)
    processes.disks = Disks(processes.rank, {1: [1]}, processes.new_group())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disks, "CHUNK", 100)
        findings = {"sent": sent(processes, folder / "sent"), "saved": saved(processes, folder / "checkpoints")}
    processes.disks = Disks()
    return findings | {"told": told(processes)}


def told(processes: Processes) -> dict[str, Any]:
    """The error of a file that only the second process cannot read."""

    def read() -> int:
        if processes.first:
            return 7
        raise BadFile("docs.txt: not there", "a hint")

    try:
        processes.all_do(read)
    except DataError as error:
        return {"message": str(error), "hint": error.hint, "everywhere": error.everywhere}
    return {}


def sent(processes: Processes, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    if not processes.first:
        for name, size in SIZES.items():
            (folder / name).write_bytes(bytes(n % 251 for n in range(size)))
    return {
        "collected": problem(lambda: processes.disks.collect(folder, SIZES)),
        "unreadable": problem(lambda: processes.disks.collect(folder, ["missing"])),
        "unwritable": problem(lambda: processes.disks.collect(folder, ["long"])),  # it is there already
        "fetched": problem(lambda: processes.disks.fetch(folder, folder, lambda ranks: ["small"])),
    }


def problem(act: Callable[[], None]) -> str:
    """The error of `act`, or nothing."""
    try:
        act()
    except (OSError, LmctlError) as error:
        return type(error).__name__
    return ""


def saved(processes: Processes, folder: Path) -> dict[str, Any]:
    """A checkpoint with a part of each process, which is read back by both."""

    def anywhere(bad: bool) -> bool:
        return any(processes.sum([bad]))

    store = Checkpoints(folder, 2, processes.rank, anywhere, disks=processes.disks)
    tensor = torch.arange(1000.0)
    for step in (1, 2):
        path = store.save(step, {"a": tensor + step}, {"step": step}, {"own": torch.full((99,), processes.rank)})
    path = processes.broadcast(path)
    with at_hand(path, folder, processes) as here:
        contents = read(here)
        own = contents.of_rank(processes.rank)
        findings = {"weights": contents.weights["a"] - tensor, "own": (own or {})["own"]}
        findings["elsewhere"] = here.parent != folder
        other = contents.of_rank(1 - processes.rank)
    left = sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))

    def damaged() -> None:
        if processes.first:
            (path / "state.pt").write_bytes(b"other")
        with at_hand(path, folder, processes):
            raise AssertionError("a damaged copy was used")

    return findings | {"other": other is not None, "left": left, "damaged": problem(damaged)}
