"""Settings of glibc's heap: memory that a step frees stays with the process, in whole blocks, for the next step.

By default glibc maps every block of more than 32 MiB anew, and gives the end of its heap back as soon as some ten MiB
of it are free. Training frees all activations in every step, so the kernel makes (and fills with zeros) the same pages
again and again: 9,800 page faults in a step of BERT-small in bf16, 16 x 128. Where a fault is expensive, as on many
virtual machines, that is a fifth to a third of a step.

Simply keeping everything would take up to twice the memory, because freed blocks do not fit again. torch asks for
addresses that are multiples of 64 (posix_memalign), glibc cuts a larger block to size, and the cuttings, of at most
96 bytes, go to the cache of small blocks that every thread has (tcache). Small objects are then made of them, and when
the block is freed, it lacks these bytes for the next one of its size. Without these caches the cuttings join the block
again: six blocks of 64 MiB, made and freed eight times, take 385 MiB with the settings below, and 833 MiB with caches
(how much depends on where the heap begins: four blocks of 40 MiB took 160 to 280 MiB, with caches up to 960).

The caches can be switched off only by an environment variable that is read when a process starts, hence
`without_thread_caches`. See mallopt(3), malloc_trim(3) and "Memory Allocation Tunables" in glibc's manual. Another C
library (musl, macOS, Windows) has none of this, and nothing is changed.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any

EVERY = 200
"""Interval of `return_unused` in steps: where rows differ in length, blocks of other sizes leave holes. The pages that
are needed again cost a third of one step."""

VARIABLE, WITHOUT_CACHES = "GLIBC_TUNABLES", "glibc.malloc.tcache_count=0"
FAST_BLOCKS, TRIM_THRESHOLD, MMAP_THRESHOLD, HEAPS = 1, -1, -3, -8
"""Parameters of mallopt, from glibc's malloc.h."""
NEVER, LARGEST, USUAL, MAPPED = -1, 2**31 - 1, 32 << 20, 256 << 10
"""Thresholds: the heap's end is never given back; the largest block in bytes that may be on the heap, as an int, as
glibc's own rule allows, and where it is to be small."""


def without_thread_caches(words: Sequence[str]) -> None:
    """Start this process anew (the same command, with the same process id) without glibc's caches of small blocks;
    returns if they are off already, or elsewhere. To be called before anything has been done. `words`: the arguments of
    the command; a process that was started with others only calls it in passing, and is left as it is."""
    before = os.environ.get(VARIABLE)
    if _glibc() is None or (before is not None and "tcache_count" in before):
        return
    if not words or sys.orig_argv[-len(words) :] != list(words):
        return
    tunables = ":".join(filter(None, [before, WITHOUT_CACHES]))
    with suppress(OSError):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {VARIABLE: tunables})


def keep_freed_memory() -> None:
    """Have the heap keep what is freed, for this process and from now on. With thread caches, blocks of more than
    32 MiB are still mapped one by one."""
    libc = _glibc()
    if libc is None:
        return
    whole = WITHOUT_CACHES in os.environ.get(VARIABLE, "")
    if whole:
        libc.mallopt(FAST_BLOCKS, 0)  # of up to 128 bytes, which would not be joined at once either
    if libc.mallopt(MMAP_THRESHOLD, LARGEST if whole else USUAL) or libc.mallopt(MMAP_THRESHOLD, USUAL):
        libc.mallopt(TRIM_THRESHOLD, NEVER)


def map_large_blocks() -> None:
    """Have large blocks mapped one by one, and given back when they are freed: where memory is what is lacking, and
    weights come and go (FSDP)."""
    libc = _glibc()
    if libc is not None:
        libc.mallopt(MMAP_THRESHOLD, MAPPED)
        libc.mallopt(TRIM_THRESHOLD, MAPPED)


def share_heap() -> None:
    """Have threads that are started from now on allocate from the heaps that there are, usually one. Otherwise each has
    a heap of its own, which keeps what the thread has freed from threads that work after it."""
    libc = _glibc()
    if libc is not None:
        libc.mallopt(HEAPS, 1)


def return_unused() -> None:
    """Return the free pages of the heap to the system."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@cache
def _glibc() -> Any:
    """The C library of this process, None unless it is glibc."""
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018
    except (AttributeError, OSError, TypeError):
        return None
    return libc
