"""Rotation of pairs of numbers in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Rotate: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], None]
"""(x, cos, sin, out): see `rotated`."""


def rotated(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    """Of each vector of D numbers, the first half x1 becomes x1 cos1 - x2 sin1, and the second x2 cos2 + x1 sin2, in
    float32, rounded after each operation, then to the dtype of `out`.

    `x` [R, L, A, D], float32 or bfloat16, with any strides but one of 1 in D, which is even; `cos` and `sin`, float32
    [R or 1, L, D], contiguous; `out` like `x`, contiguous."""
    first, second = x.float().chunk(2, dim=-1)
    (cos1, cos2), (sin1, sin2) = (angles.unsqueeze(2).chunk(2, dim=-1) for angles in (cos, sin))
    out.copy_(torch.cat([first * cos1 - second * sin1, second * cos2 + first * sin2], dim=-1))
