"""glibc's heap: it keeps what is freed, whole, and gives back what lies unused."""

import os
import platform
import subprocess
import sys

import psutil
import pytest
import torch

from lmctl.core import heap

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such settings")

PROGRAM = """
import ctypes, resource, sys
from lmctl.core import heap

heap.without_thread_caches(sys.argv[1:])
heap.keep_freed_memory()
libc = ctypes.CDLL(None)
small = []

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def aligned(size):
    place = ctypes.c_void_p()
    assert libc.posix_memalign(ctypes.byref(place), ctypes.c_size_t(64), ctypes.c_size_t(size)) == 0
    ctypes.memset(place, 1, size)
    small.append(libc.malloc(48))  # what a tensor has besides its values
    return place

before = resident()
for turn in range(30):
    if turn == 20:
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [aligned(40 << 20) for _ in range(4)]
    while blocks:
        libc.free(blocks.pop())
print(sys.argv[1], resident() - before, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""


def test_blocks_of_one_size_are_made_once_and_take_little_more_than_their_size():
    """40 MiB each: glibc by itself would map them anew in every turn, and with thread caches keep six times as much.
    Where the heap begins, which the environment decides, it is their size, or three quarters more."""
    environment = {name: value for name, value in os.environ.items() if name != heap.VARIABLE}
    command = [sys.executable, "-c", PROGRAM, "a word"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    *word, resident, faults = done.stdout.split()
    assert word == ["a", "word"]  # the process that started anew has the same command line
    assert int(resident) < 2 * 4 * (40 << 20)
    assert int(faults) < 1000  # of 40,960 pages in a turn


def test_unused_pages_are_given_back():
    def resident() -> int:
        return psutil.Process().memory_info().rss

    many = [torch.ones(25_000) for _ in range(1000)]  # 100 kB each
    many = many[-1:]  # the last one keeps the heap from shrinking
    before = resident()
    heap.return_unused()
    assert before - resident() > 50e6
    assert many[0].sum() == 25_000


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that this process, `lmctl train seed=1`, is started anew with."""
    commands: list[list[str]] = []
    monkeypatch.delenv(heap.VARIABLE, raising=False)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "lmctl", "train", "seed=1"])
    monkeypatch.setattr(heap.os, "execve", lambda _, command, __: commands.append(command))
    return commands


def test_elsewhere_nothing_happens(started: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heap, "_glibc", lambda: None)
    heap.without_thread_caches(["train", "seed=1"])
    heap.keep_freed_memory()
    heap.return_unused()
    assert started == []


def test_a_process_of_other_words_is_not_started_anew(started: list[list[str]]):
    """A program that calls `lmctl.cli.main.main` by the way, such as a worker of multiprocessing."""
    heap.without_thread_caches(["train", "seed=2"])
    heap.without_thread_caches([])
    assert started == []
    heap.without_thread_caches(["train", "seed=1"])
    assert [command[1:] for command in started] == [["-m", "lmctl", "train", "seed=1"]]
