"""Deterministic kernels: bit-identical gradients from run to run on a GPU, too.

Products and reductions of CUDA are deterministic. Gradients of fused attention and of indexing with repeated indices
are so only with `torch.use_deterministic_algorithms`. It is switched on around backward passes only, because a few
operations without a deterministic kernel (`cumsum`, in top-p sampling) may be used elsewhere.

cuDNN's attention, torch's first choice on Hopper and Blackwell GPUs for bf16 and fp16, is never deterministic, and
makes a new plan for every batch shape: with rows of many lengths a step took half a second instead of some 20 ms.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def choose_kernels() -> None:
    """Select deterministic kernels; to be called before any GPU computation. Attention by FlashAttention or torch's own
    kernels, and a cuBLAS workspace that fixes the order of sums (torch's default on Hopper GPUs)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # for debugging only


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Context in which gradients on `device` are bit-identical from run to run."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")  # `use_deterministic_algorithms` would import torch's compiler
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
