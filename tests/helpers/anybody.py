"""The rights of an ordinary user, for files that may not be read or written: tests are often run by root, who may."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

VERSION_3 = 0x20080522
PASSES_PERMISSIONS = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (capabilities(7))."""


@contextmanager
def anybody() -> Iterator[None]:
    """Inside it this thread obeys permissions, whoever's it is; processes that it starts do not."""
    if os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("only Linux lets root give this right away and take it back")
    libc, this_thread = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(VERSION_3, 0)
    before, fewer = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    assert libc.capget(this_thread, before) == 0
    fewer[:] = before[:]
    fewer[0] &= ~PASSES_PERMISSIONS  # of the three sets, the one that counts
    assert libc.capset(this_thread, fewer) == 0
    try:
        yield
    finally:
        assert libc.capset(this_thread, before) == 0
