"""`suite=classification`: accuracy and F1 of a classifier, or correlation and error of a regression model.

Counts are stored per class, not per row; only Spearman's correlation stores two numbers per row.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np

from lmctl.core.batch import Row
from lmctl.core.errors import DataError
from lmctl.core.suggest import nearest
from lmctl.inference.heads import Classifier, classifier_of
from lmctl.inference.length_batches import by_length
from lmctl.inference.suites.job import Figures, SuiteJob, nothing
from lmctl.objective import label_scores

SEPARATOR = ","
"""Separator of the labels of one row, for multi-label data in one string."""


def evaluate(job: SuiteJob) -> Figures:
    """The metrics for the label kind of the model's head."""
    classifier = classifier_of(job.loaded, job.task)
    kind = classifier.kind
    answers = by_length(
        answered(job, classifier),
        lambda one: sum(map(len, one[0])),
        job.config.batch,
        lambda batch: _logits(classifier, batch, job.length),
    )
    classes = len(classifier.labels)
    table = np.zeros((classes, classes), dtype=np.int64)
    several = np.zeros((3, classes), dtype=np.int64)
    exact = rows = 0
    predicted, true = array("d"), array("d")
    for logits, answer in answers:
        rows += 1
        if kind == "class":
            table[int(answer[0]), int(logits.argmax())] += 1
        elif kind == "classes":
            guess, held = logits > 0, answer > 0.5
            several += np.stack([guess & held, ~guess & held, guess & ~held])
            exact += int((guess == held).all())
        else:
            predicted.append(float(logits[0]))
            true.append(float(answer[0]))
    if not rows:
        raise nothing("classification")
    if kind == "class":
        return {
            "accuracy": float(table.trace() / rows),
            "macro_f1": label_scores.macro_f1(table),
            "matthews": label_scores.matthews(table),
            "rows": rows,
        }
    if kind == "classes":
        return {
            "accuracy": exact / rows,
            "micro_f1": label_scores.micro_f1_of_hits(several),
            "macro_f1": label_scores.macro_f1_of_hits(several),
            "rows": rows,
        }
    return {**of_numbers(np.array(predicted), np.array(true)), "rows": rows}


def of_numbers(predicted: np.ndarray, true: np.ndarray) -> Figures:
    """Pearson and Spearman correlation by scipy (0 if either side is constant), and the mean squared error."""
    from scipy.stats import pearsonr, spearmanr

    varies = len(predicted) > 1 and np.ptp(predicted) > 0 and np.ptp(true) > 0
    return {
        "pearson": float(pearsonr(predicted, true).statistic) if varies else 0.0,
        "spearman": float(spearmanr(predicted, true).statistic) if varies else 0.0,
        "mean_squared_error": float(((predicted - true) ** 2).mean()),
    }


def answered(job: SuiteJob, classifier: Classifier) -> Iterator[tuple[list[str], np.ndarray]]:
    """The texts of each row, and its label as an array: one class, one number, or zeros and ones [C]."""
    for number, row in enumerate(job.rows(), start=1):
        where = row.where or f"row {number}"
        if row.label is None:
            raise DataError(f"{where}: the row has no label", "say where labels are: data.label=COLUMN")
        yield row.texts, _label_array(classifier, row, where)


def _label_array(classifier: Classifier, row: Row, where: str) -> np.ndarray:
    if classifier.kind == "number":
        try:
            return np.array([float(row.label)])  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise DataError(f"{where}: label {row.label!r} is not a number, which is what the model says") from None
    if classifier.kind == "class":
        if isinstance(row.label, list):
            raise DataError(f"{where}: the row has a list of labels, and the model chooses one")
        return np.array([_class_index(classifier, row.label, where)])
    labels = row.label if isinstance(row.label, list) else _name(row.label).split(SEPARATOR)
    answer = np.zeros(len(classifier.labels))
    for label in labels:
        if _name(label).strip():
            answer[_class_index(classifier, _name(label).strip(), where)] = 1
    return answer


def _name(label: object) -> str:
    """Class name of a label: 1.0, as some readers return integers, is the class "1"."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _class_index(classifier: Classifier, label: object, where: str) -> int:
    name, known = _name(label), classifier.labels
    # A model without class names has LABEL_0, LABEL_1, ...: these match the numbers in the data.
    for spelling in (name, f"LABEL_{name}"):
        if spelling in known:
            return known[spelling]
    close = nearest(name, known)
    raise DataError(
        f"{where}: the model has no label {name!r}" + (f"; did you mean {close!r}?" if close else ""),
        f"its labels: {', '.join(known)}",
    )


def _logits(
    classifier: Classifier, batch: list[tuple[list[str], np.ndarray]], length: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Logits float64 [C] of each row, with its label."""
    logits = classifier.logits([texts for texts, _ in batch], length)
    return [(line, answer) for line, (_, answer) in zip(logits, batch, strict=True)]
