"""Dropout from a counter in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from lmctl.kernels.counter import BLOCK, Key, halves

Masked: TypeAlias = Callable[[Tensor, Tensor, Key, int, float], None]
"""(x, out, key, threshold, scale): see `masked`."""

PART = 128 * BLOCK
"""Elements at a time, whose random bits stay in the cache of a core."""


def masked(x: Tensor, out: Tensor, key: Key, threshold: int, scale: float) -> None:
    """out = x * (0 where the element's 16 bits are below `threshold`, else `scale`): both contiguous, of one dtype out
    of float32, bfloat16 and float16, which are multiplied in float32; they may be one tensor."""
    for part, (source, target) in enumerate(zip(x.view(-1).split(PART), out.view(-1).split(PART), strict=True)):
        kept = halves(len(source), key, part * PART) >= threshold
        target.copy_(source.float() * (kept * scale))
