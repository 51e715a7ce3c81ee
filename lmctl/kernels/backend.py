"""Choice between compiled and plain kernels, and work shared out to threads.

Both kinds give the same numbers, bit by bit, so the choice is one of speed: a checkpoint may be gone on with on a
machine that has no numba. numba is imported when the first kernel runs, not before.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import version

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from lmctl.core.extras import is_installed

LEAST_PER_THREAD = 1 << 16
"""Elements below which another thread costs more than it gives."""

_plain_only = False


def use_compiled(wanted: bool) -> None:
    """Use compiled kernels from now on where numba is installed (the default), or plain ones everywhere."""
    global _plain_only
    _plain_only = not wanted


def compiled() -> bool:
    """Whether kernels of CPU tensors are compiled."""
    return not _plain_only and has_numba()


@cache
def has_numba() -> bool:
    """Whether numba is installed; kernels ask this often, and the answer takes a while."""
    return is_installed("numba")


def takes(tensor: Tensor) -> bool:
    """Whether kernels are for this tensor: it is on a CPU, and is not being traced by torch.compile."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def has_data(tensor: Tensor) -> bool:
    """Whether the tensor has values, and is not one of `lmctl plan`'s, which have a shape only."""
    return not isinstance(tensor, FakeTensor)


def described() -> str:
    """The kernels of this process in words, for the record of a run."""
    if compiled():
        return f"numba {version('numba')}"
    return "plain torch" if has_numba() else "plain torch (numba is not installed)"


def in_threads(work: Callable[[int, int], None], size: int, elements: int, multiple: int = 1) -> None:
    """Call `work(start, end)` for parts of `range(size)`, each a multiple of `multiple` but the last, in as many
    threads as torch uses if there are `elements` enough. `work` must release the GIL; its results must not depend on
    how the range is cut."""
    threads = min(torch.get_num_threads(), max(1, elements // LEAST_PER_THREAD))
    step = -(-size // (threads * multiple)) * multiple
    starts = range(0, size, step or 1)
    if len(starts) <= 1:
        work(0, size)
        return
    others = [_pool(torch.get_num_threads()).submit(work, start, min(size, start + step)) for start in starts[1:]]
    work(0, step)
    for other in others:
        other.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="kernels")
