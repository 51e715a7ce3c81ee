"""Unigram baseline: the loss of a model that knows only token frequencies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmctl.objective.base import LOSS, Metric

if TYPE_CHECKING:
    from torch import Tensor


def unigram_baseline(histogram: np.ndarray, labels: Tensor) -> dict[str, Metric]:
    """The metrics of the unigram model on `labels` int64 [N]; see `unigram_nats`."""
    return {LOSS: Metric(unigram_nats(histogram, labels), len(labels), higher_is_better=False)}


def unigram_nats(histogram: np.ndarray, labels: Tensor) -> float:
    """Summed loss in nats of `labels` int64 [N] under token counts int64 [V] (add-one smoothed). Special tokens do not
    occur in the text: their frequency among the labels is taken as known."""
    counts = np.asarray(histogram, dtype=np.float64) + 1
    wanted = np.bincount(labels.numpy(), minlength=len(counts)).astype(np.float64)
    if len(wanted) > len(counts):
        counts = np.append(counts, np.ones(len(wanted) - len(counts)))
    inserted = (counts == 1) & (wanted > 0)
    if ordinary := wanted[~inserted].sum():
        counts[inserted] = np.maximum(1, wanted[inserted] * counts.sum() / ordinary)
    return float(-(wanted * np.log(counts / counts.sum())).sum())
