"""Classification and regression metrics from sums over rows, so that no single row has to be stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from lmctl.objective.base import Metric

if TYPE_CHECKING:
    from torch import Tensor


def of_class(logits: Tensor, labels: Tensor) -> dict[str, Metric]:
    """Single-label metrics of logits [R, C] and labels int64 [R]: accuracy, macro F1 and Matthews correlation, the last
    two from the confusion matrix [C, C] (true, predicted)."""
    import torch

    classes, guesses = logits.shape[-1], logits.argmax(dim=-1)
    pairs = torch.bincount(labels * classes + guesses, minlength=classes * classes).reshape(classes, classes)
    return {
        "accuracy": Metric((guesses == labels).sum(), len(labels), higher_is_better=True, share=True),
        "macro_f1": Metric(pairs, len(labels), higher_is_better=True, finish=macro_f1),
        "matthews": Metric(pairs, len(labels), higher_is_better=True, finish=matthews),
    }


def of_classes(logits: Tensor, labels: Tensor) -> dict[str, Metric]:
    """Multi-label metrics of logits [R, C] and zeros and ones [R, C]: share of rows with every class correct; macro and
    micro F1, from true positives, false negatives and false positives [3, C]."""
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
    """Regression metrics of predictions [R, 1] and numbers [R]: Pearson correlation, from the sums of x, y, xx, yy and
    xy, [5]."""
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
    """F1 averaged over the classes that occur, from a confusion matrix [C, C] (true, predicted)."""
    both = matrix.sum(axis=0) + matrix.sum(axis=1)
    return float((2 * matrix.diagonal()[both > 0] / both[both > 0]).mean())


def matthews(matrix: np.ndarray) -> float:
    """Matthews correlation coefficient for several classes (Gorodkin 2004), from a confusion matrix [C, C]; 0 if all
    rows or all predictions are of one class."""
    true, guessed = (matrix.sum(axis=axis, dtype=np.float64) for axis in (1, 0))
    rows = guessed.sum()
    spread = (rows * rows - guessed @ guessed) * (rows * rows - true @ true)
    return float((matrix.trace() * rows - true @ guessed) / np.sqrt(spread)) if spread > 0 else 0.0


def macro_f1_of_hits(hits: np.ndarray) -> float:
    """Macro F1 from true positives, false negatives and false positives [3, C]; a class without any of them counts
    0."""
    tp, fn, fp = hits
    both = 2 * tp + fn + fp
    return float(np.divide(2 * tp, both, out=np.zeros(len(tp)), where=both > 0).mean())


def micro_f1_of_hits(hits: np.ndarray) -> float:
    """Micro F1 from true positives, false negatives and false positives [3, C]."""
    tp, fn, fp = hits.sum(axis=1)
    return float(2 * tp / max(2 * tp + fn + fp, 1e-12))


def pearson(moments: np.ndarray) -> float:
    x, y, xx, yy, xy = moments
    spread = np.sqrt(max(xx - x * x, 0.0) * max(yy - y * y, 0.0))
    return float((xy - x * y) / spread) if spread > 0 else 0.0
