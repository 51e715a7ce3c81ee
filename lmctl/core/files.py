"""Atomic file writes: after a crash the old file or the new one is there, never a partial one."""

from __future__ import annotations

import difflib
import errno
import fcntl
import glob
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from lmctl.core.errors import ConfigError, DiskError


def sync_file(path: Path) -> None:
    """fsync the contents of `path`."""
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())


def sync_folder(path: Path) -> None:
    """fsync the directory entries of `path`."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """fsync all files and folders below `folder`, and itself."""
    for place, _, files in os.walk(folder):
        for name in files:
            sync_file(Path(place, name))
        sync_folder(Path(place))


def nearest_place(place: Path) -> str | None:
    """A hint for a path that does not exist: the most similar sibling at the first wrong component."""
    for step in reversed([place, *place.parents]):
        if step.exists():
            continue
        try:
            siblings = sorted(entry.name for entry in step.parent.iterdir())
        except OSError:
            return None
        close = difflib.get_close_matches(step.name, siblings, n=1)
        return f"did you mean {step.parent / close[0]}?" if close else None
    return None


def digest(path: Path) -> str:
    """sha256 of a file's contents, in hex."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def whole(path: Path) -> Iterator[TextIO]:
    """A text file to write step by step, which replaces `path` atomically at the end. What processes that were killed
    have left of such a file is removed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _remove_leftovers(path)
        with open(partial, "x", encoding="utf-8", newline="") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def is_partial(name: str) -> bool:
    """Whether a file of this name is what `whole` writes before it replaces another one."""
    return re.fullmatch(r"\..+\.\d+", name) is not None


def _remove_leftovers(path: Path) -> None:
    """Remove partial files of `path` that no process has locked; their processes were killed."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if is_partial(leftover.name) and leftover.is_file() and not leftover.is_symlink():
            with suppress(OSError), open(leftover, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink()


def write_text(path: Path, text: str) -> None:
    """Replace the contents of `path` by `text`, atomically."""
    with whole(path) as handle:
        handle.write(text)


def write_json(path: Path, value: Any) -> None:
    """Replace the contents of `path` by `value` as JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n")


_OF_A_DISK = re.compile(
    r"os error \d+|I/O error|No space left|PytorchStreamWriter|inline_container|basic_ios|iostream error"
    r"|\[enforce fail(?! at \S*alloc_cpu)"
)
"""How exceptions of libraries (safetensors, tokenizers, torch's archives) describe a disk error."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""How numpy describes a write of which only a part succeeded: without an error number."""


def is_full_disk(error: BaseException) -> bool:
    """Whether an exception, of Python or a library, reports a write that failed because the disk is full, read-only or
    broken."""
    return _error_number(error) in _FULL


def _error_number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if match := re.search(r"os error (\d+)", str(error)):
        return int(match[1])
    full = "No space left" in str(error) or (isinstance(error, OSError) and _SHORT_WRITE.search(str(error)))
    return errno.ENOSPC if full else None


def reason_of(error: BaseException) -> str:
    """The system's words for a failed write."""
    number = _error_number(error)
    return os.strerror(number) if number else (str(error).splitlines() or [type(error).__name__])[0]


def is_disk_error(error: BaseException) -> bool:
    """Whether an exception reports a failed write (disk full, I/O error) and no mistake of the user."""
    return isinstance(error, (OSError, DiskError)) or _OF_A_DISK.search(str(error)) is not None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Context manager: a failed write of a library to `path` becomes a `DiskError`; other exceptions pass unchanged."""
    try:
        yield
    except DiskError:
        raise
    except Exception as error:  # tokenizers raises plain Exception
        if not is_disk_error(error):
            raise
        raise disk_error(path, error) from error


def disk_error(path: Path, error: BaseException) -> DiskError:
    """The error message for a failed write to `path`."""
    number = _error_number(error)
    room = next((parent for parent in [path, *path.parents] if parent.exists()), Path("/"))
    status = os.statvfs(room)
    free = status.f_bavail * status.f_frsize >> 20
    hint = "free some space" if number in (None, errno.ENOSPC, errno.EDQUOT) else "check its permissions"
    return DiskError(
        f"cannot write {path}: {reason_of(error)} ({free} MiB free)",
        f"{hint}, or choose another place (run_dir=..., out=...)",
    )


def is_local_path(name: str) -> bool:
    """Whether `name` must be a local path and cannot be the id of a model on a hub: because it exists, because it is
    written like a path (with a backslash, or below `runs/`, the default place of runs), or because its parent folder
    exists."""
    path = path_of(name)
    written = name.startswith((".", "/", "~", "runs/")) or name.count("/") > 1 or "\\" in name
    return path.exists() or written or (len(path.parts) > 1 and path.parent.is_dir())


def path_of(text: str) -> Path:
    """The path that a user typed; `~` is expanded as in a shell."""
    return Path(os.path.expanduser(text))


_ROOM = 40
"""Bytes to leave free in a folder's name, because temporary names beside it are longer."""


def refuse_folder(folder: Path, key: str) -> None:
    """ConfigError, naming `key`, if `folder` can never be created: a file is in the way, or a name is too long."""
    if "\0" in str(folder):
        raise ConfigError(f"{key} holds a NUL, which no name may")
    for part in folder.parts:
        length = len(os.fsencode(part))
        if length > 255 - _ROOM:
            raise ConfigError(f"{key}: {part[:20]}... has {length} bytes, and a name may have {255 - _ROOM}")
    if len(os.fsencode(folder)) > 3000:
        raise ConfigError(f"{key} is {len(os.fsencode(folder))} bytes long, and a path may have 3000")
    for place_ in (folder, *folder.parents):
        if os.path.lexists(place_):
            if not place_.is_dir():
                what = "a broken link" if place_.is_symlink() and not place_.exists() else "a file"
                raise ConfigError(f"{key}={folder}: {place_} is {what}, not a folder", f"choose another {key}=...")
            return


def refuse_file(file: Path, key: str) -> None:
    """ConfigError or DiskError, naming `key`, if no file can be written at `file`; called before any work."""
    if not os.path.lexists(file):
        refuse_folder(file, key)
    if file.is_dir():
        raise ConfigError(f"{key}={file} is a directory, and a file is written", f"name a file in it: {key}={file}/...")
    if file.parent == Path("/dev") or (file.exists() and not file.is_file()):
        raise ConfigError(f"{key}={file} is no ordinary file", "name one in a directory that there is")
    if not file.parent.is_dir():
        raise ConfigError(f"{key}={file}: there is no directory {file.parent}")
    if not os.access(file.parent, os.W_OK):
        raise disk_error(file, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
