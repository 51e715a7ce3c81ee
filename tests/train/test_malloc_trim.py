"""Free pages of the heap go back to the system."""

from __future__ import annotations

import platform

import psutil
import pytest
import torch

from lmctl.train.malloc_trim import trim_heap


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries do it by themselves, or cannot")
def test_holes_in_the_heap_are_given_back():
    def resident() -> int:
        return psutil.Process().memory_info().rss

    many = [torch.ones(25_000) for _ in range(1000)]  # 100 kB each: below what glibc would map by itself
    many = many[-1:]  # the last one keeps the heap from shrinking
    before = resident()
    trim_heap()
    assert before - resident() > 50e6
    assert many[0].sum() == 25_000
