"""A disk that is full for some files, or at the nth thing that is done to it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
CALLS = ("os.mkdir", "os.rename", "os.replace", "os.fsync", "os.open")


@contextmanager
def full_disk(fails: Callable[[str, str], bool], *more: str) -> Iterator[list[str]]:
    """Within this, calls that change the disk (`CALLS`, and `more`) fail where `fails(call, path)` is true; yields what
    was done, in order."""
    done: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for call in (*CALLS, *more):
            module, _, name = call.rpartition(".")
            real = __import__("importlib").import_module(module).__dict__[name]

            def act(*args: Any, real: Any = real, call: str = call, **kwargs: Any) -> Any:
                writes = call != "os.open" or (len(args) > 1 and args[1] & (os.O_WRONLY | os.O_RDWR))
                path = str(args[1] if call in ("os.rename", "os.replace", "torch.save") else args[0])
                if writes:
                    done.append(f"{call} {path}")
                    if fails(call, path):
                        raise FULL
                return real(*args, **kwargs)

            patch.setattr(call, act)
        yield done
