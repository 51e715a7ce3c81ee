"""Exact int8 matrix product, int8 x int8 -> int32.

Three implementations with the same result: int8 units if there are any (CUDA, CPUs with AVX-512 VNNI); else float32
products of blocks so short that every sum is an integer below 2^24, which float32 represents exactly. On a CPU without
VNNI torch's own int8 kernel is tens of times slower than float32; with it, four times as fast (measured on one core,
1024 x 1024 x 256: 1.3 ms against 5.6 ms).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lmctl.precision.counting import count

BLOCK = 1024
"""Terms of a float32 sum: 128 * 128 * 1024 = 2^24, so all partial sums are exact for any int8 values."""
LONGEST = 131_071
"""Terms of an int32 sum: 128 * 128 * 131071 < 2^31."""


_probe = getattr(torch.cpu, "_is_vnni_supported", None)
NATIVE = bool(_probe is not None and _probe())
"""Whether this CPU multiplies int8 faster than float32 (AVX-512 VNNI). Read once: torch.compile cannot trace the
probe."""


def has_units(device: torch.device) -> bool:
    """Whether a device multiplies int8 faster than float32."""
    return device.type == "cuda" or NATIVE


def no_gain(device: torch.device) -> str | None:
    """Why int8 products are no faster than float32 ones on a device, or None."""
    if has_units(device):
        return None
    return "this CPU has no int8 units (AVX-512 VNNI): products are exact, but made in fp32 and no faster"


def int8_product(a: Tensor, b: Tensor, backend: Literal["auto", "int_mm", "blocks"] = "auto") -> Tensor:
    """int8 [M, K] times int8 [K, N]: int32 [M, N], exact (int64 if K is so long that int32 could overflow)."""
    count("int8")
    if a.shape[1] > LONGEST:
        parts = range(0, a.shape[1], LONGEST)
        return sum(
            (_product(a[:, k : k + LONGEST], b[k : k + LONGEST], backend).to(torch.int64) for k in parts),
            torch.zeros((), dtype=torch.int64, device=a.device),
        )
    return _product(a, b, backend)


def _product(a: Tensor, b: Tensor, backend: str) -> Tensor:
    if 0 in (*a.shape, *b.shape):
        return torch.zeros(a.shape[0], b.shape[1], dtype=torch.int32, device=a.device)
    if a.device.type == "cuda":
        return padded(a, b)
    if backend == "int_mm" or (backend == "auto" and NATIVE):
        return torch._int_mm(a, b)
    return in_blocks(a, b)


def in_blocks(a: Tensor, b: Tensor) -> Tensor:
    """By float32 products of BLOCK terms, which are summed in int32."""
    total = None
    for start in range(0, a.shape[1], BLOCK):
        part = torch.mm(a[:, start : start + BLOCK].float(), b[start : start + BLOCK].float()).to(torch.int32)
        total = part if total is None else total.add_(part)
    assert total is not None
    return total


def padded(a: Tensor, b: Tensor) -> Tensor:
    """By `torch._int_mm` in the form of cuBLASLt's fast kernels: more than 16 rows, other sides multiples of 16 (padded
    with zeros), `a` row-major and `b` column-major."""
    (m, k), n = a.shape, b.shape[1]
    rows, inner, columns = max(0, 32 - m), -k % 16, -n % 16
    a = F.pad(a, (0, inner, 0, rows)) if rows or inner else a.contiguous()
    b = F.pad(b.t(), (0, inner, 0, columns)) if inner or columns else b.t().contiguous()
    return torch._int_mm(a, b.t())[:m, :n]
