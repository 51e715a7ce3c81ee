"""What the system says of a file: whether it is a plain one, and whether it has changed since."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TypeAlias

from lmctl.core.errors import DataError

_KINDS = {stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFIFO: "a pipe"}


def not_plain(path: Path) -> str | None:
    """What `path` is ("a pipe") if it exists and is no plain file, also through links; None if it is one, or a folder.
    OSError if it cannot be told."""
    status = path.stat()
    if stat.S_ISREG(status.st_mode) and status.st_dev in _kernel_devices():
        return "a file of the system's kernel"
    return _KINDS.get(stat.S_IFMT(status.st_mode))


@cache
def _kernel_devices() -> frozenset[int]:
    """Devices of /proc and /sys, where files look plain, and reading one may block for ever."""
    return frozenset(os.stat(place).st_dev for place in ("/proc", "/sys") if os.path.ismount(place))


def is_pipe(path: Path) -> bool:
    """Whether `path` is a pipe, which can be read only once."""
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except OSError:
        return False


def check_lasting(files: Iterable[Path]) -> None:
    """DataError if one of the files is a pipe, which cannot be read twice."""
    for file in files:
        if is_pipe(file):
            raise DataError(
                f"{file} is a pipe, which can be read only once, and this text is read several times",
                "write it to a file, and name that",
            )


FileStates: TypeAlias = "tuple[tuple[Path, tuple[int, ...] | None], ...]"
"""Device, inode, size, modification and change time of files; None for one that is not there."""


def states(files: Iterable[Path]) -> FileStates:
    """How files stand now; another value whenever one of them was written or replaced."""
    return tuple((file, _state(file)) for file in files)


def _state(file: Path) -> tuple[int, ...] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def check_unchanged(before: FileStates, now: FileStates) -> None:
    """DataError that names a file which was written, replaced, added or removed between two states."""
    if before == now:
        return
    known, there = dict(before), dict(now)
    changed = next((file for file in {**known, **there} if known.get(file) != there.get(file)), None)
    raise DataError(
        f"{changed or 'the order of the files'} changed while it was read",
        "run the same command again once nothing writes there; or give a copy",
    )
