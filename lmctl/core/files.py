"""Writing files so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmctl.core.errors import DiskError


def sync_file(path: Path) -> None:
    """Make sure the contents of `path` are on the disk."""
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())


def sync_folder(path: Path) -> None:
    """Make sure the names in `path` are on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(path: Path) -> str:
    """sha256 of a file's contents, in hex."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text`, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise disk_error(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n")


_OF_A_DISK = re.compile(r"os error \d+|I/O error|No space left|PytorchStreamWriter|inline_container|\[enforce fail")
"""How libraries that have errors of their own (safetensors, tokenizers, torch's archives) word those of a disk."""


def of_a_disk(error: BaseException) -> bool:
    """Whether `error` says that something could not be written, and not that somebody made a mistake."""
    return isinstance(error, (OSError, DiskError)) or _OF_A_DISK.search(str(error)) is not None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside it, what keeps a library from writing `path` ends in a `DiskError`; any other error stays what it is."""
    try:
        yield
    except DiskError:
        raise
    except Exception as error:  # tokenizers raises this very class
        if not of_a_disk(error):
            raise
        raise disk_error(path, error) from error


def disk_error(path: Path, error: BaseException) -> DiskError:
    """What to tell a person when `path` could not be written."""
    told = re.search(r"os error (\d+)", str(error))
    number = getattr(error, "errno", None) or (int(told[1]) if told else None)
    reason = os.strerror(number) if number else (str(error).splitlines() or [type(error).__name__])[0]
    room = next((parent for parent in [path, *path.parents] if parent.exists()), Path("/"))
    status = os.statvfs(room)
    free = status.f_bavail * status.f_frsize >> 20
    hint = "free some space" if number in (None, errno.ENOSPC, errno.EDQUOT) else "check its permissions"
    return DiskError(f"cannot write {path}: {reason} ({free} MiB free)", f"{hint}, or choose another run_dir=...")


def means_a_place(name: str) -> bool:
    """Whether `name` can only be meant for a file or folder here, and not for a model on a hub: because it is one,
    because it is written like one (below `runs/`, too, where runs go by default), or because the folder it would lie in
    is here."""
    path = Path(name).expanduser()
    written = name.startswith((".", "/", "~", "runs/")) or name.count("/") > 1
    return path.exists() or written or (len(path.parts) > 1 and path.parent.is_dir())
