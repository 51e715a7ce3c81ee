"""How far apart the answers of two passes are, by what kind of answer it is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lmctl.core.batch import Batch, Terms


def divergences(batch: Batch, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Terms:
    """Per term, summed over its targets, from the logits [N, C] of two passes: the Kullback-Leibler divergence, the
    mean of both directions (of each class by itself, where several may hold); the squared difference of numbers."""
    return {name: _apart(one[name].float(), other[name].float(), batch.targets[name].labels) for name in one}


def _apart(p: Tensor, q: Tensor, labels: Tensor) -> Tensor:
    if labels.is_floating_point() and labels.dim() == 1:
        return ((p - q) ** 2).sum()
    shares = torch.sigmoid if labels.is_floating_point() else _softmax
    # KL(P, Q) + KL(Q, P) = sum (P - Q) (log P - log Q), and what normalises the logarithms drops out.
    return ((shares(p) - shares(q)) * (p - q)).sum() / 2


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(dim=-1)
