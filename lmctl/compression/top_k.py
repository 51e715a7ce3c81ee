"""Which values survive pruning: the k of largest magnitude of a tensor.

Sorting out k of a million takes a CPU tens of milliseconds. Deep Gradient Compression (Lin et al. 2018, section 5)
therefore takes a threshold from a sample. Here the sample only says where to look: whatever lies above a threshold that
lets about half as many again through as are wanted is sorted exactly. If at least k lie above it, the k largest are
among them, so the survivors are those of a full top-k (but for the choice between equal ones); if the sample was wrong,
a full top-k is made.
"""

from __future__ import annotations

import math

from torch import Tensor

STRIDE = 61
"""One value in so many is sampled: a prime, so that it falls on every column of a matrix."""
LEAST = 200 * STRIDE
"""Of fewer values the sample would say too little."""
SLACK = 1.5
"""Candidates wanted for each survivor."""


def survivors(values: Tensor, k: int, sampled: bool) -> Tensor:
    """The positions, ascending, of the k values of largest magnitude: int64 [k] of [n]."""
    size = values.abs()
    found = candidates(size, k) if sampled else None
    if found is None:
        return size.topk(k, sorted=False).indices.sort().values
    return found[size[found].topk(k, sorted=False).indices].sort().values


def candidates(size: Tensor, k: int) -> Tensor | None:
    """The positions, at least k, of all magnitudes above a threshold taken from a sample; None: look at all."""
    if len(size) < LEAST or SLACK * k > len(size) / 4:
        return None
    sample = size[::STRIDE]
    threshold = sample.topk(min(len(sample), math.ceil(SLACK * k / STRIDE) + 2), sorted=False).values.min()
    above = (size > threshold).nonzero().squeeze(1)
    return above if len(above) >= k else None
