"""What somebody would reach who knows how often each token occurs and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmctl.objective.base import LOSS, Metric

if TYPE_CHECKING:
    from torch import Tensor


def unigram_baseline(histogram: np.ndarray, labels: Tensor) -> dict[str, Metric]:
    """The metrics of guessing `labels` int64 [N] as `unigram_nats` does."""
    return {LOSS: Metric(unigram_nats(histogram, labels), len(labels), higher_is_better=False)}


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
