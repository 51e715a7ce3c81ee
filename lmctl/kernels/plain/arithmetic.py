"""Powers of two and sums of float32 numbers, with roundings in a fixed order: compiled code gives the same bits."""

from __future__ import annotations

import torch
from torch import Tensor

LANES = 32
"""Numbers that are handled together: sums are made in as many parts."""
EXP2 = (
    0.0001535336188319500,
    0.001339887440266574,
    0.009618437357674640,
    0.05550332471162809,
    0.2402264791363012,
    0.6931472028550421,
    1.0,
)
"""2^x for |x| <= 1/2, from the highest power to the lowest; relative error 2e-7 (Moshier 1992, Cephes, `exp2f`)."""
LEAST = -126.0
"""2^x is 0 below."""
ROUND = 1.5 * 2.0**23
"""Added to a float32 number of at most 2^22 and subtracted again: the number rounded, ties to even."""


def exp2(x: Tensor) -> Tensor:
    """2^x of float32 numbers that are not positive, rounded after each product and each sum; 0 below 2^-126."""
    whole = (x + ROUND) - ROUND
    rest = x - whole
    result = rest * EXP2[0]
    for coefficient in EXP2[1:-1]:
        result.add_(coefficient).mul_(rest)
    result.add_(EXP2[-1]).mul_(((whole.to(torch.int32) + 127) << 23).view(torch.float32))
    return torch.where(x < LEAST, 0.0, result)


def lane_sum(x: Tensor) -> Tensor:
    """The sum over the last dimension, in a fixed order: number j is added to lane j % LANES, then the second half of
    the lanes to the first until one is left."""
    lanes = torch.nn.functional.pad(x, (0, -x.shape[-1] % LANES)).unflatten(-1, (-1, LANES))
    total = torch.zeros_like(lanes[..., 0, :])
    for part in lanes.unbind(-2):
        total += part
    while total.shape[-1] > 1:
        half = total.shape[-1] // 2
        total = total[..., :half] + total[..., half:]
    return total[..., 0]
