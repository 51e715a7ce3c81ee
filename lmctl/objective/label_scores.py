"""Metrics of labels from sums over rows, so that nothing has to be kept of a row."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lmctl.objective.base import Metric

if TYPE_CHECKING:
    from torch import Tensor


def of_class(logits: Tensor, labels: Tensor) -> dict[str, Metric]:
    """Logits [R, C] against int64 [R]: accuracy, macro-averaged F1 and Matthews' correlation, the last two from the
    confusion matrix [C, C] (true, guessed)."""
    import torch

    classes, guesses = logits.shape[-1], logits.argmax(dim=-1)
    pairs = torch.bincount(labels * classes + guesses, minlength=classes * classes).reshape(classes, classes)
    return {
        "accuracy": Metric((guesses == labels).sum(), len(labels), higher_is_better=True, share=True),
        "macro_f1": Metric(pairs, len(labels), higher_is_better=True, finish=macro_f1),
        "matthews": Metric(pairs, len(labels), higher_is_better=True, finish=matthews),
    }


def of_classes(logits: Tensor, labels: Tensor) -> dict[str, Metric]:
    """Logits [R, C] against zeros and ones [R, C]: the share of rows with every class right; F1 averaged over classes,
    and of all of them together, from hits, misses and false alarms [3, C]."""
    import torch

    guesses, true = logits > 0, labels > 0.5
    counts = [(guesses & true).sum(dim=0), (~guesses & true).sum(dim=0), (guesses & ~true).sum(dim=0)]
    hits, rows = torch.stack(counts), len(labels)
    return {
        "accuracy": Metric((guesses == true).all(dim=-1).sum(), rows, higher_is_better=True, share=True),
        "macro_f1": Metric(hits, rows, higher_is_better=True, finish=macro_f1_of_hits),
        "micro_f1": Metric(hits, rows, higher_is_better=True, finish=micro_f1_of_hits),
    }


def of_number(logits: Tensor, labels: Tensor) -> dict[str, Metric]:
    """Predictions [R, 1] against numbers [R]: Pearson's correlation, from the sums of x, y, xx, yy and xy, [5]."""
    import torch

    x, y = logits.squeeze(-1).double(), labels.double()
    moments = torch.stack([x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()])
    return {"pearson": Metric(moments, len(labels), higher_is_better=True, finish=pearson)}


METRICS: dict[str, Callable[[Tensor, Tensor], dict[str, Metric]]] = {
    "class": of_class,
    "classes": of_classes,
    "number": of_number,
}


def macro_f1(matrix: np.ndarray) -> float:
    """F1 averaged over the classes that occur, from a confusion matrix [C, C]."""
    from sklearn.metrics import f1_score

    return _of_confusion(matrix, partial(f1_score, average="macro", zero_division=0))


def matthews(matrix: np.ndarray) -> float:
    """Matthews' correlation coefficient, from a confusion matrix [C, C]."""
    from sklearn.metrics import matthews_corrcoef

    return _of_confusion(matrix, matthews_corrcoef)


def _of_confusion(matrix: np.ndarray, metric: Callable[..., float]) -> float:
    """By scikit-learn: every cell of the matrix is a row that weighs as much as the cell."""
    true, guessed = (axis.ravel() for axis in np.indices(matrix.shape))
    weights = matrix.ravel()
    kept = weights > 0
    return float(metric(true[kept], guessed[kept], sample_weight=weights[kept]))


def macro_f1_of_hits(hits: np.ndarray) -> float:
    tp, fn, fp = hits
    both = 2 * tp + fn + fp
    return float(np.divide(2 * tp, both, out=np.zeros_like(tp), where=both > 0).mean())


def micro_f1_of_hits(hits: np.ndarray) -> float:
    tp, fn, fp = hits.sum(axis=1)
    return float(2 * tp / max(2 * tp + fn + fp, 1e-12))


def pearson(moments: np.ndarray) -> float:
    x, y, xx, yy, xy = moments
    spread = np.sqrt(max(xx - x * x, 0.0) * max(yy - y * y, 0.0))
    return float((xy - x * y) / spread) if spread > 0 else 0.0
