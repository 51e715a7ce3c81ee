"""Files that a stranger may have made: opened only if they are regular files, and never written through a link.

A run directory may come from anywhere, by a download or an archive. What lmctl finds in it can be a symbolic link to a
file elsewhere, a second name of one (a hard link), or a FIFO, at which a reader waits for ever.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lmctl.core.errors import ConfigError
from lmctl.core.paths import Paths

JSON_BYTES = 64 << 20
"""The largest JSON file that is read; a summary has some kilobytes, that of a large sweep some megabytes."""


def open_regular(path: Path, follow: bool = True) -> BinaryIO:
    """A regular file to read; OSError for anything else, and for a link unless they are to be followed. Never waits for
    a FIFO."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # before Python opens it, which says less of a folder
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(descriptor, "rb")


def read_bytes(path: Path, most: int, follow: bool = True) -> bytes:
    """The contents of a regular file of at most `most` bytes; OSError for anything else."""
    with open_regular(path, follow) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
        return file.read(most)


def read_json(path: Path, most: int = JSON_BYTES, follow: bool = True) -> Any:
    """The JSON value in a regular file; None if there is none, or none that can be read."""
    try:
        return json.loads(read_bytes(path, most, follow))
    except (OSError, ValueError, RecursionError):
        return None


def open_to_append(path: Path) -> BinaryIO:
    """A regular file to append to, made if need be; OSError for a link, a file with a second name, and the like."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = open(os.open(path, flags, 0o666), "ab")  # noqa: SIM115  # closed by whoever asked for it
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        file.close()
        raise OSError(errno.EINVAL, "not a regular file with a single name", str(path))
    return file


def refuse_links(run: Paths) -> None:
    """ConfigError if something that lmctl writes, renames or deletes in a run directory is a link or no plain file or
    folder. The directory itself may be a link, and so may what others put beside."""
    for path, is_ours in _entries(run):
        found = path.lstat()
        what, remedy = None, "it was not made by lmctl; take the run from where it comes from"
        if stat.S_ISLNK(found.st_mode):
            what = f"a link to {os.readlink(path)!r}"
            remedy = "lmctl would write there; move the whole run directory, which may be a link itself"
        elif stat.S_ISDIR(found.st_mode):
            what = "a folder where a file is due" if is_ours == "file" else None
        elif not stat.S_ISREG(found.st_mode):
            what = "neither a file nor a folder"
        elif is_ours == "folder":
            what = "a file where a folder is due"
        elif path in _appended(run) and found.st_nlink > 1:
            what = "a file with a second name elsewhere (a hard link)"
            remedy = "lmctl would write to both; copy the run directory as it is: cp -r"
        if what is not None:
            raise ConfigError(f"run_dir={run.root}: {path.relative_to(run.root)} is {what}", remedy)


def _appended(run: Paths) -> tuple[Path, ...]:
    """What is written in place; everything else is written beside and renamed."""
    return run.metrics, run.lock, run.log


def _entries(run: Paths) -> Iterator[tuple[Path, str]]:
    """What is ours in a run directory, with "file", "folder" or, inside of our folders, ""."""
    files = (run.lock, run.log, run.config, run.environment, run.metrics, run.summary, run.results, run.tracked)
    for file in files:
        if os.path.lexists(file):
            yield file, "file"
    for folder in (run.checkpoints, run.model, run.plot.parent, run.tensorboard):
        if os.path.lexists(folder):
            yield folder, "folder"
            for place, folders, names in os.walk(folder):  # does not follow links
                yield from ((Path(place, name), "") for name in (*folders, *names))
    for partial in run.root.glob(f".{run.model.name}-partial-*"):
        yield partial, "folder"
