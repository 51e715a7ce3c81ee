"""lmctl's attention on a CPU against torch's: forward and backward of one layer, by mask, dropout and dtype.

Processor time of one thread, the least of some runs. `share` is the part of all scores that tiles have: what nobody
sees is left out where whole tiles are empty. lmctl takes its own function where it is faster (`model.attention=tiled`).

    python scripts/bench/attention.py
    python scripts/bench/attention.py --shapes 32x4x128x64 8x12x512x64 --kernels torch
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lmctl.kernels import backend
from lmctl.kernels.attention import attention
from lmctl.kernels.attention_tiles import share
from lmctl.model.attention_function import dense

RUNS = 7
DOCUMENT, NEAR = 100, 64
"""Tokens of a document in a packed row; positions to either side that local attention sees."""


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shapes = ["32x4x128x64", "16x4x256x64", "8x12x512x64", "4x12x1024x64"]
    p.add_argument("--shapes", nargs="+", default=shapes, help="rows x heads x tokens x width of a head")
    p.add_argument("--kernels", choices=("numba", "torch"), default="numba", help="compiled or plain ones of lmctl's")
    args = p.parse_args()
    torch.set_num_threads(1)
    backend.use_compiled(args.kernels == "numba")
    print("| rows x heads x tokens x width | mask | dropout | dtype | share | torch ms | lmctl ms | torch / lmctl |")
    print("|---|---|---:|---|---:|---:|---:|---:|")
    for shape in args.shapes:
        rows, heads, tokens, width = map(int, shape.split("x"))
        for mask, spans in masks(rows, tokens).items():
            for dropout in (0.0, 0.1):
                for dtype in (torch.float32, torch.bfloat16):
                    sizes = (rows, tokens, heads, width)
                    qkv = [torch.randn(sizes).to(dtype).transpose(1, 2).requires_grad_() for _ in range(3)]
                    torchs, ours = fastest(theirs(qkv, mask, spans, dropout), own(qkv, spans, dropout))
                    part = share(spans.numpy(), heads, tokens)
                    kind = str(dtype).removeprefix("torch.")
                    line = f"{shape} | {mask} | {dropout} | {kind} | {part:.2f} | {torchs:.1f} | {ours:.1f}"
                    print(f"| {line} | {torchs / ours:.2f} |", flush=True)


def masks(rows: int, tokens: int) -> dict[str, Tensor]:
    """Spans int32 [R or 1, Q, 2] by name."""
    places = torch.arange(tokens, dtype=torch.int32)
    nothing = torch.zeros_like(places)
    starts = torch.arange(rows, dtype=torch.int32)[:, None] * 37 % DOCUMENT  # of each row another place in a document
    first = (places - (places + starts) % DOCUMENT).clamp_min(0)
    return {
        "none": torch.stack([nothing, nothing + tokens], -1)[None],
        "causal": torch.stack([nothing, places + 1], -1)[None],
        "documents": torch.stack([first, (places + 1).expand(rows, -1)], -1),
        "local": torch.stack([(places - NEAR).clamp_min(0), (places + NEAR + 1).clamp_max(tokens)], -1)[None],
    }


def own(qkv: list[Tensor], spans: Tensor, dropout: float) -> Callable[[], None]:
    q, k, v = qkv
    return lambda: attention(q, k, v, spans, q.shape[-1] ** -0.5, dropout).sum().backward()


def theirs(qkv: list[Tensor], mask: str, spans: Tensor, dropout: float) -> Callable[[], None]:
    """torch's function, with a dense mask where it has no word for one."""
    seen = dense(spans[:, None], qkv[0].shape[2]) if mask in ("documents", "local") else None
    q, k, v = qkv
    return lambda: F.scaled_dot_product_attention(q, k, v, seen, dropout, mask == "causal").sum().backward()


def fastest(*functions: Callable[[], None]) -> list[float]:
    """Milliseconds of processor time of each, in turn, the least of some runs."""
    least = [float("inf")] * len(functions)
    for _ in range(RUNS + 1):
        for place, function in enumerate(functions):
            began = time.process_time()
            function()
            least[place] = min(least[place], 1e3 * (time.process_time() - began))
    return least


if __name__ == "__main__":
    main()
