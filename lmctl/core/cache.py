"""A content-addressed cache on disk: an entry's key is a hash of everything that it was made from.

An entry is a directory. It is built next to its final path and renamed when complete, under a file lock that the
operating system releases when the process dies. So a killed build never counts as a hit, and two runs build an entry
once. Whenever it is opened it is verified, and built anew if it is damaged (`lmctl.core.cache_check`).

An entry is not trusted beyond that: whoever can write to the cache can change a run's numbers, but files are mapped,
never unpickled, links are not followed, and what an array says of another one is checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from lmctl.core.cache_check import BROKEN, Damaged, json_in, seal, set_aside, stamp, verify
from lmctl.core.errors import DiskError, LmctlError
from lmctl.core.files import is_full_disk, path_of, reason_of, sync_folder

FORMAT = 2
"""Version of all entries, part of every key: increase it to invalidate old entries."""

_BUILDING = ".building"

Value = TypeVar("Value")


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


def found(root: Path, kind: str, identity: Mapping[str, Any], read: Callable[[Path], Value]) -> Value | None:
    """What `read` makes of an existing entry; None if there is none, or if it is damaged. Nothing is built."""
    entry = root / kind / key_of(identity)
    if not os.path.lexists(entry):
        return None
    try:
        return _opened(entry, read)
    except Damaged:
        return None


def identities(root: Path, kind: str) -> list[dict[str, Any]]:
    """The identities of all entries of a kind, as far as they can be read."""
    entries = sorted((root / kind).glob("*/identity.json"))
    values = [json_in(path) for path in entries if not path.parent.name.startswith(BROKEN)]
    return [value for value in values if isinstance(value, dict)]


def cached(
    root: Path,
    kind: str,
    identity: Mapping[str, Any],
    make: Callable[[Path], None],
    read: Callable[[Path], Value],
    say: Callable[[str], None],
) -> tuple[Value, bool]:
    """What `read` makes of an entry's folder, which is built if it is missing, and whether it was a hit.

    On a miss `make(folder)` fills an empty folder. A concurrent process waits for the lock, then hits. An exception of
    `make` is passed on and leaves no entry. A damaged entry (see `lmctl.core.cache_check`; or `read` raises Damaged) is
    renamed to `broken-...`, never deleted, because another process may be using it; `say` is told, and it is built
    anew. A cache that cannot be read or written is a DiskError. An OSError of `make` about a file outside the cache, or
    about no file while the disk has room, is passed on unchanged.
    """
    shelf = root / kind
    name = key_of(identity)
    entry = shelf / name
    try:
        if os.path.lexists(entry):
            with suppress(Damaged):  # then looked at again under the lock
                return _opened(entry, read), True
        shelf.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock_of(entry)):
            if os.path.lexists(entry):
                try:
                    return _opened(entry, read), True
                except Damaged as damage:
                    aside = set_aside(entry)
                    say(f"cache: an entry is damaged ({damage}): set aside as {kind}/{aside.name}, and made anew")
            _remove_partial_entries(shelf)
            building = shelf / (name + _BUILDING)
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir()
            try:
                make(building)
                (building / "identity.json").write_text(json.dumps(identity, indent=2, sort_keys=True) + "\n")
                seal(building)
                building.rename(entry)
            except BaseException:
                shutil.rmtree(building, ignore_errors=True)
                raise
            sync_folder(shelf)
            stamp(entry)
            return read(entry), False
    except Exception as error:
        if not _is_cache_error(error, root, shelf):
            raise
        reason = reason_of(error)
        raise DiskError(f"cannot use the cache {root}: {reason}", "choose another place: cache_dir=") from error


def _opened(entry: Path, read: Callable[[Path], Value]) -> Value:
    """What `read` makes of a sound entry; Damaged if it is not sound, or if a file disappears meanwhile."""
    try:
        verify(entry)
        return read(entry)
    except FileNotFoundError as error:
        raise Damaged("a file was removed") from error


def _is_cache_error(error: Exception, root: Path, shelf: Path) -> bool:
    """Whether an exception is about the cache: a file in it, or a disk that is full or read-only."""
    if isinstance(error, LmctlError):
        return False
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        place = Path(os.path.abspath(os.fsdecode(error.filename)))
        return place.is_relative_to(os.path.abspath(root)) or Path(os.path.abspath(root)).is_relative_to(place)
    return is_full_disk(error) or (isinstance(error, OSError) and not shelf.is_dir())


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
