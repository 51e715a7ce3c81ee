"""Emulation of bf16 and fp16 matrix products in fp32, for CPUs without native half precision.

torch's own kernels for half products are 20 to 76 times slower than fp32 on such CPUs (AVX2 without AVX-512). Rounding
the operands to the half format, multiplying in fp32 and rounding the result gives what a half-precision unit with fp32
accumulation gives, at the speed of fp32. The backward pass does the same through autograd, because the casts are part
of the graph.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lmctl.precision.counting import count

PRODUCTS = {
    F.linear,
    F.scaled_dot_product_attention,
    torch.matmul,
    torch.mm,
    torch.bmm,
    torch.addmm,
    torch.baddbmm,
    Tensor.matmul,
    Tensor.__matmul__,
    Tensor.__rmatmul__,
    Tensor.mm,
    Tensor.bmm,
}

NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16"}


_assumed_native = False


@contextmanager
def assume_native() -> Iterator[None]:
    """Context in which half products count as native on any CPU: for planning a run on another machine."""
    global _assumed_native
    before, _assumed_native = _assumed_native, True
    try:
        yield
    finally:
        _assumed_native = before


def elsewhere() -> bool:
    """Whether a run on another machine is planned."""
    return _assumed_native


def native(dtype: torch.dtype) -> bool:
    """Whether this CPU has hardware products of `dtype`."""
    return _assumed_native or _has_units(dtype)


@cache
def _has_units(dtype: torch.dtype) -> bool:
    probe = {
        torch.bfloat16: "_is_mkldnn_bf16_supported",
        torch.float16: "_is_mkldnn_fp16_supported",
    }[dtype]
    supported = getattr(torch.ops.mkldnn, probe, None)
    if supported is None or not supported():
        return False
    # With AVX-512 alone oneDNN has bf16 products, and they are 2.5 times slower than fp32.
    if dtype == torch.bfloat16 and platform.machine() in ("x86_64", "AMD64"):
        return bool(torch.cpu._is_avx512_bf16_supported())
    return True


class HalfProducts(TorchFunctionMode):
    """Torch function mode: every product on the CPU rounds its operands and its result to `dtype`."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in PRODUCTS or args[0].device.type != "cpu":
            return func(*args, **kwargs)
        count(NAMES[self.dtype])
        with torch.autocast("cpu", enabled=False):
            return func(*map(self._round, args), **{k: self._round(v) for k, v in kwargs.items()}).to(self.dtype)

    def _round(self, value: Any) -> Any:
        return value.to(self.dtype).float() if isinstance(value, Tensor) and value.is_floating_point() else value
