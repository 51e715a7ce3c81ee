"""Losses and scores of terms that pick one class out of several: summed, never averaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lmctl.core.types import Batch, Terms

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
    smoothed)."""
    counts = np.asarray(histogram, dtype=np.float64) + 1
    return float(-np.log(counts / counts.sum())[labels.numpy()].sum())
