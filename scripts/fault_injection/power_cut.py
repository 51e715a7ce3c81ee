"""Power cuts, simulated: of what was written, only what was synchronised is there afterwards.

The forked child keeps what each file held when it was last fsynced. Before a chosen event it writes down the tree that
a file system would have after a cut, and is killed; the tree takes the place of the real one, and the run goes on.
Three file systems, from the kindest to the worst:

    ordered   names as they were at the last fsync of anything; a journal commits them in order
    eager     names as they are at the cut: a rename may be on the disk before the data is
    strict    names as they were when their own directory was last fsynced

A file that was never fsynced is empty. That says nothing of disks which lie about an fsync.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

from fault_injection.events import Event
from fault_injection.fault import Fault, goes_on
from fault_injection.workshop import Place, Workshop

Tree = dict[str, int | None]
"""Names below the folders, and a number for each file that was ever there; None for a directory."""
KINDS = ("ordered", "eager", "strict")


class Disk:
    """What a disk would hold of some folders if the power went now."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders
        self.contents: dict[int, bytes] = {}
        """What each file held when it was last fsynced."""
        self.ordered: Tree = {}
        self.strict: dict[str, Tree] = {}
        """What each directory held when it was last fsynced."""
        self._files: dict[int, int] = {}
        """The file of each inode that is in use; an inode that is used again is another file."""
        self._next = count()
        self._fsync = os.fsync

    def install(self) -> None:
        """See every fsync from now on. Python code calls `os.fsync`, and no library that lmctl uses syncs by itself."""
        os.fsync = self._synced  # type: ignore[assignment]

    def _synced(self, descriptor: int) -> None:
        self._fsync(descriptor)
        self.ordered = self.names()
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            self.strict[str(path)] = {name: file for name, file in self.ordered.items() if Path(name).parent == path}
        elif (file := self.ordered.get(str(path))) is not None:
            self.contents[file] = path.read_bytes()

    def names(self) -> Tree:
        """Everything in the folders."""
        tree: Tree = {}
        inodes: dict[str, int] = {}
        for folder in self.folders:
            for place, folders, files in os.walk(folder):
                tree |= {os.path.join(place, name): None for name in folders}
                paths = [os.path.join(place, name) for name in files]
                inodes |= {path: os.stat(path).st_ino for path in paths if os.path.exists(path)}
        used = set(inodes.values())
        self._files = {inode: self._files[inode] if inode in self._files else next(self._next) for inode in used}
        return tree | {path: self._files[inode] for path, inode in inodes.items()}

    def after_cut(self, kind: str) -> Tree:
        if kind == "ordered":
            return self.ordered
        if kind == "eager":
            return self.names()
        tree: Tree = {}
        for name, file in sorted(self.names().items()):
            parent = os.path.dirname(name)
            if self.strict.get(parent, {}).get(name, -1) == file and (parent in tree or Path(parent) in self.folders):
                tree[name] = file
        return tree

    def write(self, tree: Tree, target: Path) -> None:
        """The tree as it is on the disk, below `target`, with the contents that are on it."""
        for name, file in tree.items():
            copy = target / name.lstrip("/")
            if file is None:
                copy.mkdir(parents=True, exist_ok=True)
            else:
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(self.contents.get(file, b""))


def power_cuts(workshop: Workshop, cell: str) -> Iterator[Fault]:
    """A cut just before each event of a run, in turn."""
    for kind in KINDS:
        for number in range(1, len(workshop.reference(cell).events) + 1):
            yield Fault(f"power cut, {kind} names", f"power/{cell}/{kind}/{number}", partial(_cut, cell, kind, number))


def _cut(cell: str, kind: str, number: int, workshop: Workshop) -> list[str]:
    place = workshop.place(f"{cell}-power")
    saved, target = place.logs / "saved", place.home / "cuts" / place.name
    disk = Disk([place.folder, place.cache])
    workshop.run(cell, place, _cutting(disk, kind, number, target, saved, place), before=disk.install)
    for folder in disk.folders:
        shutil.rmtree(folder, ignore_errors=True)
        if (left := target / str(folder).lstrip("/")).exists():
            shutil.move(left, folder)
    shutil.rmtree(target, ignore_errors=True)
    found = []
    if kind != "strict" and saved.exists() and not (place.run / "checkpoints" / saved.read_text()).is_dir():
        found.append(f"{saved.read_text()} was saved before the cut, and is gone")
    return found + goes_on(workshop, cell, place, None)


def _cutting(disk: Disk, kind: str, number: int, target: Path, saved: Path, place: Place) -> Event:
    passed = count(1)

    def event(phase: str, operation: str) -> None:
        disk.names()
        if (phase, operation) == ("saving", "end"):
            saved.write_text((place.run / "checkpoints" / "latest").read_text().strip())
        if next(passed) == number:
            disk.write(disk.after_cut(kind), target)
            os.kill(os.getpid(), signal.SIGKILL)

    return event
