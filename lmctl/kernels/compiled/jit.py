"""Compilation by numba at a kernel's first call, and the folder in which its machine code is kept.

numba reads kept machine code by pickle, so whoever can write to that folder can run code as this user. It is therefore
neither `__pycache__` nor a cache that several people may share, but a folder that nobody else can write to or replace,
or there is none, and kernels are compiled anew in each process. numba compares the file of a kernel with the one it was
compiled from, but not the files of what it calls; the folder's name does, for all of them.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba

from lmctl.core.cache import default_root


def kernel(function: Callable[..., None]) -> Any:
    """Decorator: compile `function` when it is first called, for the types that it is called with. It runs without the
    GIL."""
    compiled = numba.njit(function, nogil=True, error_model="numpy")
    folder = machine_code()
    if folder is not None:
        config: Any = numba.config
        before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
        try:
            compiled.enable_caching()
        except RuntimeError:  # the folder cannot be written: numba has no place for this function
            pass
        finally:
            config.CACHE_DIR = before
    return compiled


@cache
def machine_code() -> Path | None:
    """The folder of the machine code that is made from these sources, mode 0700; None if there is no safe one."""
    sources = sorted(Path(__file__).parents[1].rglob("*.py"))
    name = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    shelf = default_root() / "kernels"
    try:
        shelf.mkdir(parents=True, exist_ok=True)
        folder = shelf.resolve() / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder if is_private(folder) else None
    except OSError:
        return None


def forget() -> None:
    """Remove the machine code that is kept, because it may be damaged."""
    if (folder := machine_code()) is not None:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.mkdir(mode=0o700)


def is_private(folder: Path) -> bool:
    """Whether a folder, given without links, is this user's, closed to others, and cannot be replaced by others: every
    folder above belongs to this user or to root, and others cannot write there, or (/tmp) only to what is theirs."""
    own = folder.stat()
    if own.st_uid != os.geteuid() or own.st_mode & 0o077:
        return False
    return all(_replaces_nothing(parent.stat()) for parent in folder.parents)


def _replaces_nothing(info: os.stat_result) -> bool:
    if info.st_uid not in (os.geteuid(), 0):
        return False
    writes = info.st_mode & (stat.S_IWOTH | (0 if _is_own_group(info.st_gid) else stat.S_IWGRP))
    return not writes or bool(info.st_mode & stat.S_ISVTX)


def _is_own_group(gid: int) -> bool:
    """Whether a group has this user for its only member, as distributions make one for each user."""
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
