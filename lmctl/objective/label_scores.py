"""Metrics of labels from sums over rows, so that nothing has to be kept of a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    Sum = Callable[[Tensor, Tensor], dict[str, Tensor]]


def of_class(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Logits [R, C] against int64 [R]: how many are right, and the confusion matrix [C, C] (true, guessed)."""
    import torch

    classes, guesses = logits.shape[-1], logits.argmax(dim=-1)
    pairs = torch.bincount(labels * classes + guesses, minlength=classes * classes)
    return {"label_accuracy": (guesses == labels).sum(), "label_confusion": pairs.reshape(classes, classes)}


def of_classes(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Logits [R, C] against zeros and ones [R, C]: rows with every class right; hits, misses, false alarms [3, C]."""
    import torch

    guesses, true = logits > 0, labels > 0.5
    counts = [(guesses & true).sum(dim=0), (~guesses & true).sum(dim=0), (guesses & ~true).sum(dim=0)]
    return {"label_accuracy": (guesses == true).all(dim=-1).sum(), "label_hits": torch.stack(counts)}


def of_number(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Predictions [R, 1] against numbers [R]: the sums of x, y, xx, yy and xy, [5]."""
    import torch

    x, y = logits.squeeze(-1).double(), labels.double()
    return {"label_moments": torch.stack([x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()])}


SUMS: dict[str, Sum] = {"class": of_class, "classes": of_classes, "number": of_number}


def figures(means: dict[str, Any]) -> dict[str, float]:
    """The sums, divided by the number of rows, as what is reported."""
    report = {name: value for name, value in means.items() if isinstance(value, float)}
    if (matrix := means.get("label_confusion")) is not None:
        report |= _of_confusion(np.asarray(matrix))
    if (hits := means.get("label_hits")) is not None:
        tp, fn, fp = np.asarray(hits)
        both = 2 * tp + fn + fp
        each = np.divide(2 * tp, both, out=np.zeros_like(tp), where=both > 0)
        report |= {"label_macro_f1": float(each.mean()), "label_micro_f1": float(2 * tp.sum() / max(both.sum(), 1e-12))}
    if (moments := means.get("label_moments")) is not None:
        x, y, xx, yy, xy = np.asarray(moments)
        spread = np.sqrt(max(xx - x * x, 0.0) * max(yy - y * y, 0.0))
        report["label_pearson"] = float((xy - x * y) / spread) if spread > 0 else 0.0
    return report


def _of_confusion(matrix: np.ndarray) -> dict[str, float]:
    """Macro-averaged F1 over the classes that occur, and Matthews' correlation, by scikit-learn: every cell of the
    matrix is a row that weighs as much as the cell."""
    from sklearn.metrics import f1_score, matthews_corrcoef

    true, guessed = (axis.ravel() for axis in np.indices(matrix.shape))
    weights = matrix.ravel()
    kept = weights > 0
    rows = (true[kept], guessed[kept])
    return {
        "label_macro_f1": float(f1_score(*rows, sample_weight=weights[kept], average="macro", zero_division=0)),
        "label_matthews": float(matthews_corrcoef(*rows, sample_weight=weights[kept])),
    }
