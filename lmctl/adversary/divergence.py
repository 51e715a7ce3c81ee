"""How far apart the answers of two passes are, by what kind of answer it is."""

from __future__ import annotations

import torch
from torch import Tensor


def divergence(one: Tensor, other: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    """Summed over targets, from the logits [N, C] of two passes: the Kullback-Leibler divergence, the mean of both
    directions (of each class by itself, where `labels` are float [N, C] because several may hold); the squared
    difference of numbers (`labels` float [N]). `others` are the labels of the second pass: of an objective that fills
    in its own text they may differ from the first one's, and where they do, the passes need not agree."""
    p, q = one.float(), other.float()
    if labels is not others:
        same = labels == others
        p, q = (values * (same if same.dim() == values.dim() else same[:, None]) for values in (p, q))
    if labels.is_floating_point() and labels.dim() == 1:
        return ((p - q) ** 2).sum()
    shares = torch.sigmoid if labels.is_floating_point() else _softmax
    # KL(P, Q) + KL(Q, P) = sum (P - Q) (log P - log Q), and what normalises the logarithms drops out.
    return ((shares(p) - shares(q)) * (p - q)).sum() / 2


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(dim=-1)
