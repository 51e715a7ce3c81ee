"""A content-addressed cache on disk: an entry's key is a hash of everything that it was made from.

An entry is a directory. It is built next to its final path and renamed when complete, under a file lock that the
operating system releases when the process dies. So a killed build never counts as a hit, and two runs build an entry
once.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lmctl.core.errors import DiskError
from lmctl.core.files import path_of

FORMAT = 1
"""Version of all entries, part of every key: increase it to invalidate old entries."""

_BUILDING = ".building"


def default_root() -> Path:
    """`$LMCTL_CACHE`, else `$XDG_CACHE_HOME/lmctl`, else `~/.cache/lmctl`."""
    if own := os.environ.get("LMCTL_CACHE"):
        return path_of(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return path_of(shared) / "lmctl"
    return Path.home() / ".cache" / "lmctl"


def root_of(cache_dir: str | None) -> Path:
    """The root directory of the cache: `cache_dir`, or the default one."""
    return path_of(cache_dir) if cache_dir else default_root()


def key_of(identity: Mapping[str, Any]) -> str:
    """The cache key: 32 hex digits, a hash of all of `identity` and nothing else; TypeError if it is not JSON."""
    canonical = json.dumps({"format": FORMAT, "identity": identity}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def found(root: Path, kind: str, identity: Mapping[str, Any]) -> Path | None:
    """The directory of an existing entry, or None. Nothing is written."""
    entry = root / kind / key_of(identity)
    return entry if entry.is_dir() else None


def cached(root: Path, kind: str, identity: Mapping[str, Any], make: Callable[[Path], None]) -> tuple[Path, bool]:
    """The directory of an entry, built if it is missing, and whether it was a hit.

    On a miss `make(folder)` fills an empty folder. A concurrent process waits for the lock, then hits. An exception of
    `make` is passed on and leaves no entry. A cache that cannot be written is a DiskError. An OSError of `make` about a
    file outside the cache, or about no file while the disk has room, is passed on unchanged.
    """
    shelf = root / kind
    name = key_of(identity)
    entry = shelf / name
    if entry.is_dir():
        return entry, True
    try:
        shelf.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock_of(entry)):
            if entry.is_dir():
                return entry, True
            _remove_partial_entries(shelf)
            building = shelf / (name + _BUILDING)
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir()
            try:
                make(building)
                (building / "identity.json").write_text(json.dumps(identity, indent=2, sort_keys=True) + "\n")
                _fsync_tree(building)
                building.rename(entry)
            except BaseException:
                shutil.rmtree(building, ignore_errors=True)
                raise
            _fsync_folder(shelf)
    except OSError as error:
        if not _is_cache_error(error, root, shelf):
            raise
        reason = error.strerror or str(error)
        raise DiskError(f"cannot write to the cache {root}: {reason}", "choose another place: cache_dir=") from error
    return entry, False


def _is_cache_error(error: OSError, root: Path, shelf: Path) -> bool:
    """Whether an OSError is about the cache: a file in it, or a disk that is full or read-only."""
    if isinstance(error.filename, str | bytes):
        place = Path(os.path.abspath(os.fsdecode(error.filename)))
        return place.is_relative_to(os.path.abspath(root)) or Path(os.path.abspath(root)).is_relative_to(place)
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO) or not shelf.is_dir()


def _lock_of(entry: Path) -> Path:
    return entry.with_name(entry.name + ".lock")


def _remove_partial_entries(shelf: Path) -> None:
    """Remove partial entries of killed builds; a running build holds its lock."""
    for leftover in shelf.glob("*" + _BUILDING):
        lock = FileLock(_lock_of(leftover.with_name(leftover.name.removesuffix(_BUILDING))))
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(leftover, ignore_errors=True)
        except Timeout:
            continue


def _fsync_tree(folder: Path) -> None:
    """fsync files and directories, so that after a power cut the rename is never on disk without the contents."""
    for place, _, files in os.walk(folder):
        for file in files:
            with open(os.path.join(place, file), "rb+") as opened:
                os.fsync(opened.fileno())
        _fsync_folder(Path(place))


def _fsync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows cannot open a directory.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
