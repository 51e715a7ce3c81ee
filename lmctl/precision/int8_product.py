"""Exact int8 matrix product, int8 x int8 -> int32.

Implementations with the same result: int8 units if there are any (CUDA, CPUs with AMX or AVX-512 VNNI); else float32
products of blocks so short that every sum is an integer below 2^24, which float32 represents exactly. On a CPU without
VNNI torch's own int8 kernel is tens of times slower than float32; with it, four times as fast (measured on one core,
1024 x 1024 x 256: 1.3 ms against 5.6 ms). It does not make use of AMX units, with which oneDNN's matmul, which torch
has for quantised layers, is up to four times as fast again (scripts/bench/int8_products.py).
"""

from __future__ import annotations

import os
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lmctl.kernels import backend
from lmctl.precision.counting import count

BLOCK = 1024
"""Terms of a float32 sum: 128 * 128 * 1024 = 2^24, so all partial sums are exact for any int8 values."""
TILE = 64
"""Terms that an AMX tile holds in a row. Of products whose terms are no multiple of it, oneDNN's kernels for int8 give
wrong sums (torch 2.13.0: 165 of the lengths from 1 to 299 for [2048, K] x [K, 512], none of the multiples)."""
LONGEST = 131_071
"""Terms of an int32 sum: 128 * 128 * 131071 < 2^31."""


WITHOUT_INT8 = ("SSE41", "AVX", "AVX2", "AVX512_CORE")
"""Values of ONEDNN_MAX_CPU_ISA that keep oneDNN from VNNI: what it does instead overflows in 16 bits."""


def _onednn_limit() -> str:
    """The newest units that oneDNN may use by its environment variable, "" for all."""
    most = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    return "" if most in ("ALL", "DEFAULT") else most


def _has_vnni() -> bool:
    probe = getattr(torch.cpu, "_is_vnni_supported", None)
    return probe is not None and bool(probe()) and _onednn_limit() not in WITHOUT_INT8


NATIVE = _has_vnni()
"""Whether this CPU multiplies int8 faster than float32 (AVX-512 VNNI), and oneDNN may. Read once: torch.compile cannot
trace the probe."""


def has_units(device: torch.device) -> bool:
    """Whether a device multiplies int8 faster than float32."""
    return device.type == "cuda" or NATIVE


def no_gain(device: torch.device) -> str | None:
    """Why int8 products are no faster than float32 ones on a device, or None."""
    if has_units(device):
        return None
    limit = _onednn_limit()
    why = f"ONEDNN_MAX_CPU_ISA={limit} rules out" if limit in WITHOUT_INT8 else "this CPU has no"
    return f"{why} int8 units (AVX-512 VNNI): products are exact, but made in fp32 and no faster"


def int8_product(a: Tensor, b: Tensor, way: Literal["auto", "amx", "int_mm", "blocks"] = "auto") -> Tensor:
    """int8 [M, K] times int8 [K, N]: [M, N], exact as int32 (int64 if K is so long that int32 could overflow), or by
    AMX units as float32, the numbers nearest to the exact ones."""
    count("int8")
    if a.shape[1] > LONGEST:
        exact = "int_mm" if NATIVE else "blocks"  # never rounded
        parts = range(0, a.shape[1], LONGEST)
        return sum(
            (_product(a[:, k : k + LONGEST], b[k : k + LONGEST], exact).to(torch.int64) for k in parts),
            torch.zeros((), dtype=torch.int64, device=a.device),
        )
    return _product(a, b, way)


def _product(a: Tensor, b: Tensor, way: str) -> Tensor:
    if 0 in (*a.shape, *b.shape):
        return torch.zeros(a.shape[0], b.shape[1], dtype=torch.int32, device=a.device)
    if a.device.type == "cuda":
        return padded(a, b)
    if a.shape[0] == 1:  # with the strides of a transposed column torch._int_mm reads beyond its memory (torch 2.13)
        a = a.flatten()[None]
    if way == "amx" or (way == "auto" and backend.takes(a) and backend.has_data(a) and _suits_amx(a, b) and amx()):
        return on_amx(a, b)
    if way == "int_mm" or (way == "auto" and NATIVE):
        return torch._int_mm(a, b)
    return in_blocks(a, b)


@cache
def amx() -> bool:
    """Whether this CPU has int8 AMX units that oneDNN may use, and a small product on them is right."""
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", None)
    if has_tiles is None or not has_tiles() or not torch.backends.mkldnn.is_available():
        return False
    if _onednn_limit() and "AMX" not in _onednn_limit():
        return False
    values = torch.arange(-128, 128, dtype=torch.int8).roll(1).repeat(300)
    a, b = values[: 300 * TILE * 3].view(300, -1), values[: TILE * 3 * 70].view(-1, 70)
    try:
        return torch.equal(on_amx(a, b), torch._int_mm(a, b).float())
    except (AttributeError, RuntimeError, TypeError):  # a torch whose operator is called or used in another way
        return False


def _suits_amx(a: Tensor, b: Tensor) -> bool:
    """Whether `on_amx` is right, and the product so large that it gains more than copying `b` costs, most of all if it
    is transposed. Measured with 1 to 512 rows and 128 to 3,072 columns."""
    rows, terms = a.shape
    pays = rows >= (256 if b.is_contiguous() else 512) and rows * b.numel() >= 1 << 26
    return pays and terms % TILE == 0


def on_amx(a: Tensor, b: Tensor) -> Tensor:
    """By oneDNN's matmul, as torch calls it for quantised layers, with scales of one: the exact sums, rounded to
    float32, if K is a multiple of TILE. It reads row-major matrices, of `b` a copy in oneDNN's own kind of tensor."""
    columns = b.shape[1]
    one, zero = torch.ones(columns), torch.zeros(columns, dtype=torch.int64)
    left = a if a.is_contiguous() or not a.t().is_contiguous() else _opaque(a).to_dense()
    result: Tensor = torch.ops.onednn.qlinear_pointwise(
        left, 1.0, 0, _opaque(b), one, zero, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return result


def _opaque(matrix: Tensor) -> Tensor:
    """A copy in oneDNN's own kind of tensor, which transposes a column-major one twice as fast as torch does."""
    if matrix.is_contiguous() or not matrix.t().is_contiguous():
        return matrix.to_mkldnn()
    return matrix.t().to_mkldnn().t()


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
