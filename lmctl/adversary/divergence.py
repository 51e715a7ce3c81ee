"""Symmetric KL divergence, or squared difference, between the predictions of two passes."""

from __future__ import annotations

import torch
from torch import Tensor


def divergence(one: Tensor, other: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    """Divergence between the logits [N, C] of two passes, summed over the N targets: symmetric Kullback-Leibler, the
    mean of both directions (per class with sigmoids where `labels` are float [N, C], multi-label); for regression
    (`labels` float [N]) the squared difference. `others`: labels of the second pass. They differ where an objective
    fills in its own text; such targets are left out."""
    p, q = one.float(), other.float()
    if labels is not others:
        same = labels == others
        p, q = (values * (same if same.dim() == values.dim() else same[:, None]) for values in (p, q))
    if labels.is_floating_point() and labels.dim() == 1:
        return ((p - q) ** 2).sum()
    shares = torch.sigmoid if labels.is_floating_point() else _softmax
    # KL(P, Q) + KL(Q, P) = sum (P - Q) (log P - log Q): the log-partition terms cancel.
    return ((shares(p) - shares(q)) * (p - q)).sum() / 2


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(dim=-1)
