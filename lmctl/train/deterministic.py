"""The same bits each time on a GPU, too: the kernels that a run may use there.

Products and reductions of CUDA are the same from run to run. Not so the gradients of fused attention and of indexing
with repeated indices, unless torch is told (`torch.use_deterministic_algorithms`). That is done around backward passes
only, because a few operations without a deterministic kernel (`cumsum`, in top-p sampling) may be used elsewhere.

cuDNN's attention, which torch takes first on Hopper and Blackwell GPUs for bf16 and fp16, is never deterministic, and
plans anew for every shape of a batch: with rows of many lengths a step took half a second instead of some 20 ms.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def choose_kernels() -> None:
    """To be called before anything is computed on a GPU: attention is FlashAttention's or torch's own, and cuBLAS has a
    workspace with which its sums have one order (torch's default on Hopper GPUs)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # its fills only find faults


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Inside it, gradients on `device` are the same bits each time."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")  # `use_deterministic_algorithms` would import torch's compiler
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
