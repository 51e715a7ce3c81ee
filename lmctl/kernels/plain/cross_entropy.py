"""Cross-entropy of logits against labels and its gradient, in plain torch: what the compiled kernels compute.

Exponentials are powers of two of the logits times log2(e); sums over a row are made in lanes.
"""

from __future__ import annotations

from torch import Tensor

from lmctl.kernels.plain.arithmetic import exp2, lane_sum

LOG2_E = 1.4426950408889634
PART = 1 << 18
"""Logits that are gone through at a time: 1 MiB, which a core has in its cache."""


def statistics(logits: Tensor, stats: Tensor, sums: bool) -> None:
    """Fill `stats` float32 [3, N] for `logits` [N, C], float32 or bfloat16: the largest of log2(e) times each row, the
    sum of 2^(the others minus it), and, if `sums`, the sum of the logits."""
    rows = max(1, PART // logits.shape[1])
    for part, largest, total, plain in zip(logits.split(rows), *(stat.split(rows) for stat in stats), strict=True):
        values = part.float()
        scaled = values * LOG2_E
        largest.copy_(scaled.amax(1))
        total.copy_(lane_sum(exp2(scaled - largest[:, None])))
        if sums:
            plain.copy_(lane_sum(values))


def gradient(logits: Tensor, labels: Tensor, stats: Tensor, factors: Tensor, result: Tensor) -> None:
    """Fill `result` [N, C], of the dtype of `logits`: `factors` float32 [3, N] say by what a row's powers of two are
    multiplied, what is taken from all of it, and what from its label, int64 [N]."""
    rows = max(1, PART // logits.shape[1])
    by_row = (tensor.split(rows) for tensor in (logits, labels, stats[0], factors.t(), result))
    for part, label, largest, factor, out in zip(*by_row, strict=True):
        power, every, one = factor.t()
        values = exp2(part.float() * LOG2_E - largest[:, None]).mul_(power[:, None]).sub_(every[:, None])
        values.scatter_(1, label[:, None], values.gather(1, label[:, None]) - one[:, None])
        out.copy_(values)
