"""Verification of cache entries: size and checksum of every file, recorded when an entry is built.

Sizes are compared whenever an entry is opened. Checksums are computed once per boot of the machine, and again once any
file has changed: a stamp beside the entry records inode, size, modification and change time of the files that were
checked last. The change time cannot be set by a program, so everything that goes through the file system is noticed at
once; decay of the disk below it is noticed at the first use after a boot, or on another machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmctl.core import progress
from lmctl.core.errors import DiskError
from lmctl.core.files import sync_folder
from lmctl.core.regular_files import open_regular, read_json

CONTENTS = "contents.json"
"""The file in an entry with size and sha256 of all others."""

BROKEN = "broken-"
"""Prefix of the names of entries that were set aside."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_BLOCK = 1 << 20
_MOST_JSON = 1 << 24
"""Limit in bytes of a JSON file of the cache."""

Status = dict[str, list[int]]
"""Inode, size, modification time and change time (ns) of each file of an entry, by relative name."""


class Damaged(DiskError):
    """A cache entry that is not what was built; the message says what is wrong with it."""


def seal(folder: Path) -> None:
    """Record size and checksum of all files in `folder`, and fsync everything, so that after a power cut a rename is
    never on disk without the contents."""
    files = {}
    for name in _status(folder):
        with open(folder / name, "rb+") as file:
            files[name] = {"size": os.fstat(file.fileno()).st_size, "sha256": _digest(file.fileno())}
            os.fsync(file.fileno())
    with open(folder / CONTENTS, "w", encoding="utf-8") as out:
        json.dump(files, out, indent=2)
        out.flush()
        os.fsync(out.fileno())
    for place, _, _ in os.walk(folder):
        sync_folder(Path(place))


def stamp(entry: Path) -> None:
    """Record that an entry has just been built or checked, if that can be written."""
    _write_stamp(entry, _status(entry))


def verify(entry: Path) -> None:
    """Damaged unless `entry` is a folder with the files that were sealed, and nothing else but hidden files. Links are
    not followed, and only regular files are opened."""
    if not stat.S_ISDIR(entry.lstat().st_mode):
        raise Damaged("no folder")
    there = _status(entry)
    if (boot := _boot_id()) and json_in(_stamp_of(entry)) == {"boot": boot, "files": there}:
        return
    sealed = json_in(entry / CONTENTS)
    if not isinstance(sealed, dict):
        raise Damaged(f"{CONTENTS} is missing or unreadable")
    if wrong := sorted(sealed.keys() ^ (there.keys() - {CONTENTS})):
        raise Damaged(f"{wrong[0]} {'is missing' if wrong[0] in sealed else 'does not belong there'}")
    for name, known in sealed.items():
        if not isinstance(known, dict) or known.get("size") != there[name][1]:
            raise Damaged(f"{name} has another size than it was written with")
    with progress.stage(f"checking the cache: {entry.parent.name}", sum(size for _, size, *_ in there.values())):
        for name, known in sealed.items():
            if _checksum(entry / name) != known.get("sha256"):
                raise Damaged(f"{name} has another checksum than it was written with")
    _write_stamp(entry, there)


def set_aside(entry: Path) -> Path:
    """Rename a damaged entry, which another process may be using, to `broken-...`; the new path."""
    for number in range(1, 1000):
        aside = entry.with_name(BROKEN + entry.name + (f"-{number}" if number > 1 else ""))
        if not os.path.lexists(aside):
            break
    return entry.rename(aside)


def _status(folder: Path) -> Status:
    """The files of `folder` with its subfolders, sorted; Damaged if there is anything else."""
    found: Status = {}
    waiting = [""]
    try:
        while waiting:
            below = waiting.pop()
            with os.scandir(folder / below) as listed:
                entries = list(listed)
            for one in entries:
                status, name = one.stat(follow_symlinks=False), below + one.name
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(f"{name}/")
                elif not stat.S_ISREG(status.st_mode):
                    raise Damaged(f"{name} is no regular file")
                elif not one.name.startswith("."):  # what a file system or a file manager leaves
                    found[name] = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    except FileNotFoundError as error:
        raise Damaged("a file was removed") from error
    return dict(sorted(found.items()))


def _checksum(path: Path) -> str:
    """sha256 of a file, in hex; Damaged if it cannot be read to its end."""
    try:
        with open_regular(path, follow=False) as file:
            return _digest(file.fileno())
    except PermissionError:
        raise
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read: {error.strerror or error}") from error


def _digest(descriptor: int) -> str:
    digest = hashlib.sha256()
    while block := os.read(descriptor, _BLOCK):
        digest.update(block)
        progress.advance(len(block))
    return digest.hexdigest()


def json_in(path: Path) -> Any:
    """The value in a JSON file of the cache; None if there is none that can be read."""
    return read_json(path, _MOST_JSON, follow=False)


def _boot_id() -> str | None:
    """The id of this machine's current boot; None where there is none, and checksums are then computed every time."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return None


def _stamp_of(entry: Path) -> Path:
    return entry.with_name(f"{entry.name}.checked")


def _write_stamp(entry: Path, files: Mapping[str, list[int]]) -> None:
    boot = _boot_id()
    if boot is None:
        return
    with suppress(OSError):  # a cache that cannot be written is checked every time
        descriptor, partial = tempfile.mkstemp(dir=entry.parent, prefix=".checked-")
        try:
            with open(descriptor, "w", encoding="utf-8") as out:
                json.dump({"boot": boot, "files": files}, out)
            os.replace(partial, _stamp_of(entry))
        except OSError:
            os.unlink(partial)
            raise
