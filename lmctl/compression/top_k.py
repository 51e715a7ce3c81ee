"""Top-k selection by magnitude, exact, with a threshold from a sample for speed.

A full top-k over a million values takes a CPU tens of milliseconds. Deep Gradient Compression (Lin et al. 2018, section
5) therefore estimates a threshold from a sample. Here the sample only preselects: the threshold lets about 1.5 k
candidates through, and a top-k runs over these. If there are at least k candidates, the top k are among them, so the
selection is that of a full top-k (except among equal values). If there are fewer, a full top-k runs.
"""

from __future__ import annotations

import math

from torch import Tensor

STRIDE = 61
"""Sampling stride: a prime, so that the sample covers every column of a matrix."""
LEAST = 200 * STRIDE
"""Smallest tensor for sampling: with fewer values the sample would be too small."""
SLACK = 1.5
"""Number of candidates wanted, in multiples of k."""


def survivors(values: Tensor, k: int, sampled: bool) -> Tensor:
    """Indices, ascending, of the k values of largest magnitude: int64 [k] of [n]."""
    size = values.abs()
    found = candidates(size, k) if sampled else None
    if found is None:
        return size.topk(k, sorted=False).indices.sort().values
    return found[size[found].topk(k, sorted=False).indices].sort().values


def candidates(size: Tensor, k: int) -> Tensor | None:
    """Indices, at least k, of all magnitudes above the sampled threshold; None: a full top-k is needed."""
    if len(size) < LEAST or SLACK * k > len(size) / 4:
        return None
    sample = size[::STRIDE]
    threshold = sample.topk(min(len(sample), math.ceil(SLACK * k / STRIDE) + 2), sorted=False).values.min()
    above = (size > threshold).nonzero().squeeze(1)
    return above if len(above) >= k else None
