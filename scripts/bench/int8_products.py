"""int8 matrix products on a CPU beside float ones: torch's own int8 function, and what lmctl takes where there are AMX
units, which wants row-major matrices and therefore copies.

Milliseconds of processor time of one thread, the least of some runs in turn.

    python scripts/bench/int8_products.py
"""

from __future__ import annotations

import torch
from kernel_times import fastest
from page import machine, table
from torch import Tensor

from lmctl.core.heap import keep_freed_memory
from lmctl.precision.int8_product import on_amx

SHAPES = ((2048, 768, 3072), (2048, 768, 768), (1024, 3072, 768), (768, 2048, 3072))
"""Rows, terms and columns."""
HEADS = ("product", "fp32", "bf16", "`torch._int_mm`", "oneDNN's matmul", "`b` transposed", "`a` transposed")


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"One thread of {machine()}:\n")
    print("\n".join(table(HEADS, [row(*shape) for shape in SHAPES])))


def row(m: int, k: int, n: int) -> list[str]:
    """The products of one shape."""
    a, b = torch.randint(-127, 128, (m, k), dtype=torch.int8), torch.randint(-127, 128, (k, n), dtype=torch.int8)
    floats, halves = (a.float(), b.float()), (a.bfloat16(), b.bfloat16())
    sides = (
        lambda: floats[0] @ floats[1],
        lambda: halves[0] @ halves[1],
        lambda: torch._int_mm(a, b),
        lambda: on_amx(a, b),
        lambda: on_amx(a, column_major(b)),
        lambda: on_amx(column_major(a), b),
    )
    return [f"{m} x {k} x {n}", *(f"{1e3 * seconds:.1f}" for seconds in fastest(sides))]


def column_major(matrix: Tensor) -> Tensor:
    """The same shape, transposed in memory; its values do not matter."""
    return matrix.view(matrix.shape[::-1]).t()


if __name__ == "__main__":
    main()
