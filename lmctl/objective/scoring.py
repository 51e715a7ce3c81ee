"""Losses and scores of terms that pick one class out of several: summed, never averaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lmctl.core.batch import Batch, Terms

if TYPE_CHECKING:
    from torch import Tensor


def cross_entropies(logits: Mapping[str, Tensor], batch: Batch) -> Terms:
    """Per term the summed cross-entropy in nats of logits [N, C] (taken in float32) against its labels [N]."""
    import torch.nn.functional as F

    return {
        name: F.cross_entropy(values.float(), batch.targets[name].labels, reduction="sum")
        for name, values in logits.items()
    }


def correct(logits: Mapping[str, Tensor], batch: Batch) -> Terms:
    """Per term, under `<term>_accuracy`, how many of its targets have the highest logit."""
    return {
        f"{name}_accuracy": (values.argmax(dim=-1) == batch.targets[name].labels).sum()
        for name, values in logits.items()
    }


def unigram_nats(histogram: np.ndarray, labels: Tensor) -> float:
    """Summed loss in nats of guessing `labels` int64 [N] from how often each piece occurs, int64 [V] (add-one
    smoothed). Special pieces are in no text: how often they are to be predicted is taken as known."""
    counts = np.asarray(histogram, dtype=np.float64) + 1
    wanted = np.bincount(labels.numpy(), minlength=len(counts)).astype(np.float64)
    if len(wanted) > len(counts):
        counts = np.append(counts, np.ones(len(wanted) - len(counts)))
    inserted = (counts == 1) & (wanted > 0)
    if ordinary := wanted[~inserted].sum():
        counts[inserted] = np.maximum(1, wanted[inserted] * counts.sum() / ordinary)
    return float(-(wanted * np.log(counts / counts.sum())).sum())
