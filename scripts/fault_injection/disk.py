"""Faults of disks: no room, errors of the device, read-only; at each write in turn, and on small real disks."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from fault_injection.events import Event
from fault_injection.fault import Fault, goes_on
from fault_injection.outcome import wrong_end
from fault_injection.workshop import Workshop

ERRORS = {"ENOSPC": 1, "EIO": 3, "EROFS": 5, "EDQUOT": 7}
"""Errors, and at how many of the events each is tried: at all of them, at every third and so on."""
LASTING = {"ENOSPC", "EROFS", "EDQUOT"}
"""Errors that stay: whatever is written later fails as well. A device may fail once."""
REMOVALS = ("remove", "rmdir", "begin", "end")
"""Events that are not refused by a disk that has no room."""
DISK = 6
"""The exit code of a command that could not write."""
PAGE = 4096
ROOM = 8 << 20
"""Bytes of a small disk."""


def errors(workshop: Workshop, cell: str) -> Iterator[Fault]:
    """An error of the disk at each operation on files of a run, in turn."""
    events = workshop.reference(cell).events
    for name, every in ERRORS.items():
        for number in range(1, len(events) + 1, every):
            if not events[number - 1].partition(": ")[2].startswith(REMOVALS):
                yield Fault(
                    f"{name} at each operation in turn",
                    f"errors/{cell}/{name}/{number}",
                    partial(_error, cell, name, number),
                )


def _error(cell: str, name: str, number: int, workshop: Workshop) -> list[str]:
    place = workshop.place(f"{cell}-{name}")
    first = workshop.run(cell, place, _raising(name, number))
    return goes_on(workshop, cell, place, first, {0, DISK})


def _raising(name: str, number: int) -> Event:
    count = 0

    def event(phase: str, operation: str) -> None:
        nonlocal count
        count += 1
        if count == number or (count > number and name in LASTING and not operation.startswith(REMOVALS)):
            code = vars(errno)[name]
            raise OSError(code, os.strerror(code))

    return event


def full(workshop: Workshop, cell: str) -> Iterator[Fault]:
    """A real disk that has room for 0, 1, 2, ... pages when the run begins, until there is enough."""
    reference = workshop.reference(cell)
    for where, size in (("run", reference.run_bytes), ("cache", reference.cache_bytes)):
        for pages in range(size // PAGE + 8):
            yield Fault(f"no room for the {where}, page by page", f"full/{cell}/{where}/{pages}",
                        partial(_full, cell, where, pages))  # fmt: skip


def _full(cell: str, where: str, pages: int, workshop: Workshop) -> list[str]:
    place = workshop.place(f"{cell}-full")
    with small_disk(place.folder if where == "run" else place.cache) as disk:
        with _taken(disk, pages):
            first = workshop.run(cell, place)
        return goes_on(workshop, cell, place, first, {0, DISK})


def read_only(workshop: Workshop, cell: str) -> Iterator[Fault]:
    """A run directory, an empty cache and a cache with all that is needed, each on a disk that is read-only."""
    for what in ("run directory", "empty cache", "filled cache"):
        yield Fault("read-only disks", f"read-only/{cell}/{what}", partial(_read_only, cell, what))


def _read_only(cell: str, what: str, workshop: Workshop) -> list[str]:
    place, found, codes = workshop.place(f"{cell}-read-only"), [], {DISK}
    with small_disk(place.folder if what == "run directory" else place.cache) as disk:
        if what == "filled cache":
            found, codes = wrong_end(workshop.run(cell, place), {0}), {0}
            shutil.rmtree(place.folder)
        _mount("-o", "remount,ro", str(disk))
        first = workshop.run(cell, place)
        _mount("-o", "remount,rw", str(disk))
        return found + goes_on(workshop, cell, place, first, codes)


def may_mount() -> bool:
    """Whether this process may mount disks. From then on it has a namespace of its own, and the disks go with it."""
    libc, owner, group = ctypes.CDLL(None, use_errno=True), os.geteuid(), os.getegid()
    new_mounts, new_users = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER
    if owner == 0:
        return libc.unshare(new_mounts) == 0 and _mount("--make-rprivate", "/") == 0
    if libc.unshare(new_users | new_mounts):
        return False
    for file, text in (("setgroups", "deny"), ("uid_map", f"0 {owner} 1"), ("gid_map", f"0 {group} 1")):
        Path(f"/proc/self/{file}").write_text(text)
    return True


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own in memory at `folder`, of a few MiB."""
    folder.mkdir(parents=True, exist_ok=True)
    if _mount("-t", "tmpfs", "-o", f"size={ROOM}", "reliability", str(folder)):
        raise RuntimeError(f"no disk could be mounted at {folder}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        with suppress(OSError):  # not empty where there was something wrong before
            folder.rmdir()


@contextmanager
def _taken(disk: Path, pages: int) -> Iterator[None]:
    """All the room of a disk but for so many pages is taken."""
    ballast = disk / "ballast"
    with open(ballast, "wb") as file:
        status = os.fstatvfs(file.fileno())
        if (most := status.f_bavail * status.f_frsize - pages * PAGE) > 0:
            os.posix_fallocate(file.fileno(), 0, most)
    try:
        yield
    finally:
        ballast.unlink()


def _mount(*words: str) -> int:
    return subprocess.run(["mount", *words], check=False).returncode
