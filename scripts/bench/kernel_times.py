"""Kernels of lmctl/kernels against eager torch and torch.compile: dropout, and quantisation by row and by column.

Milliseconds of processor time of one thread, the least of some runs in turn. torch.compile needs a C++ compiler.

    python scripts/bench/kernel_times.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmctl.kernels.dropout import dropout
from lmctl.kernels.plain.quantise import quantise_both as plain
from lmctl.kernels.quantise import quantise_both

RUNS = 15


def eager_dropout(x: Tensor) -> Tensor:
    return F.dropout(x, 0.1, True)


def eager_quantise(x: Tensor) -> Any:
    return plain(x, False, None)


def main() -> None:
    torch.set_num_threads(1)
    states, gradients = torch.randn(2048, 512), torch.randn(4096, 768)
    compiled_dropout, compiled_quantise = torch.compile(eager_dropout), torch.compile(eager_quantise)
    rows: dict[str, tuple[Callable[[], Any], ...]] = {
        "dropout [2048, 512]": (
            lambda: eager_dropout(states),
            lambda: compiled_dropout(states),
            lambda: dropout(states, 0.1, True),
        ),
        "quantise both ways [4096, 768]": (
            lambda: eager_quantise(gradients),
            lambda: compiled_quantise(gradients),
            lambda: quantise_both(gradients),
        ),
    }
    print("| ms | eager torch | torch.compile | lmctl |")
    print("|---|---:|---:|---:|")
    for name, sides in rows.items():
        print(f"| {name} | {' | '.join(f'{1e3 * seconds:.2f}' for seconds in fastest(sides))} |", flush=True)


def fastest(sides: tuple[Callable[[], Any], ...]) -> list[float]:
    """Seconds of processor time of each side, the least of some runs in turn after one that is not counted."""
    least = [float("inf")] * len(sides)
    for run in range(RUNS + 1):
        for place, side in enumerate(sides):
            began = time.process_time()
            side()
            if run:
                least[place] = min(least[place], time.process_time() - began)
    return least


if __name__ == "__main__":
    main()
