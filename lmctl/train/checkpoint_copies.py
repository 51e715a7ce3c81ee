"""Checkpoints of rank 0's disk, for the processes that do not see it (`lmctl.parallel.disks`)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lmctl.core.files import writing
from lmctl.parallel.processes import Processes
from lmctl.train.checkpoint_reader import MANIFEST, Damaged, Manifest, verify

COPY = ".partial-copy"
"""Folder of the copy, which is removed with what a killed process has left of a checkpoint."""


@contextmanager
def at_hand(path: Path, folder: Path, processes: Processes) -> Iterator[Path]:
    """Context with the directory in which this process reads the checkpoint `path` of rank 0: that of the same name in
    `folder`, the `checkpoints` of this process, or where it does not see the disk of rank 0, a verified copy of the
    files that the processes here need. A collective operation; an error for the user is raised in all processes."""
    disks, same, copy = processes.disks, folder / path.name, folder / COPY / path.name
    if not disks.apart:
        yield same
        return

    def bring() -> None:
        if disks.leads:
            shutil.rmtree(copy.parent, ignore_errors=True)
            with suppress(OSError):  # then its files cannot be written, which is said when they have been received
                copy.mkdir(parents=True)
        with writing(copy):
            disks.fetch(path, copy, lambda ranks: [MANIFEST, *Manifest.read(path).needed(ranks, processes.world)])
        if disks.leads:
            here = Manifest.read(copy).needed(disks.apart[disks.rank], processes.world)
            if (damage := verify(copy, here)) is not None:
                raise Damaged(f"{path.name} has not arrived whole ({damage})")

    try:
        processes.all_do(bring)
        yield copy if disks.is_apart else same
        processes.barrier()  # the other processes of this node may still read
    finally:
        if disks.leads:
            shutil.rmtree(copy.parent, ignore_errors=True)
