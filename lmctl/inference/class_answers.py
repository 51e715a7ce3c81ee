"""Predictions of a classifier: the label, its probability, and the probabilities of all classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from lmctl.core.errors import ConfigError
from lmctl.core.suggest import did_you_mean
from lmctl.inference.heads import Classifier
from lmctl.inference.length_batches import by_length
from lmctl.inference.load import Loaded
from lmctl.inference.new_rows import NewRow


class Answer(NamedTuple):
    """The prediction for one row."""

    label: str | float | list[str]
    """A class; a number (regression); or the classes with a probability above 0.5 (multi-label)."""
    probability: float | list[float] | None
    """Probability of the label, or of each label; None for regression."""
    probabilities: dict[str, float]
    """Probability of each class by name: softmax, or independent sigmoids for multi-label; empty for regression."""


def labelled_tasks(loaded: Loaded) -> list[str]:
    """The model's own classification and regression tasks."""
    return [name for name, note in (loaded.tasks or {}).items() if note["label_kind"]]


def chosen_task(loaded: Loaded, task: str | None) -> str | None:
    """`task`, or the model's only task with labels; None for a model without named tasks. ConfigError if none or
    several qualify."""
    tasks = labelled_tasks(loaded)
    if task is not None and task not in tasks:
        known = list(loaded.tasks or {})
        what = "labels no rows" if task in known else f"is none of its tasks{did_you_mean(task, tasks)}"
        raise ConfigError(
            f"task={task}: model_path={loaded.path}: {task} {what}",
            f"tasks that label: {', '.join(tasks)}" if tasks else "only models that lmctl trained know their tasks",
        )
    if task is None and len(tasks) > 1:
        raise ConfigError(f"model_path={loaded.path} has several tasks that label", f"task={' or task='.join(tasks)}")
    if not tasks and not loaded.classifies:
        raise ConfigError(
            f"model_path={loaded.path} is not a classifier, so it cannot label rows",
            f"fine-tune it: lmctl train init_from={loaded.path} mix=classify data=table data.path=... data.label=...",
        )
    return task or (tasks[0] if tasks else None)


def answers(
    classifier: Classifier, rows: Iterable[NewRow], batch: int, length: int, pool: int
) -> Iterator[tuple[NewRow, Answer | None]]:
    """Every row with its prediction, in order; None for a row without texts. `pool` batches are sorted by length
    together."""
    names = names_of(classifier)

    def answer(some: list[NewRow]) -> list[tuple[NewRow, Answer | None]]:
        with_texts = [row for row in some if row.texts]
        logits = iter(classifier.logits([row.texts for row in with_texts], length) if with_texts else [])
        return [(row, _answer(row, next(logits), classifier.kind, names) if row.texts else None) for row in some]

    return by_length(rows, lambda row: sum(map(len, row.texts)), batch, answer, pool=pool)


def names_of(classifier: Classifier) -> list[str]:
    """Class names by index; an unnamed class is LABEL_n, as in transformers."""
    by_place = {place: name for name, place in classifier.labels.items()}
    return [by_place.get(place, f"LABEL_{place}") for place in range(max(by_place, default=-1) + 1)]


def _answer(row: NewRow, logits: np.ndarray, kind: str, names: list[str]) -> Answer:
    """Softmax for single-label, sigmoid with threshold 0.5 for multi-label classification."""
    if not np.isfinite(logits).all():
        raise ConfigError(f"{row.where}: the model's answer is not a number (its logits are {logits.tolist()})")
    if kind == "number":
        return Answer(float(logits[0]), None, {})
    if kind == "classes":
        each = 1 / (1 + np.exp(-logits))
        held = np.flatnonzero(logits > 0).tolist()
        return Answer([names[i] for i in held], [float(each[i]) for i in held], _by_name(names, each))
    odds = np.exp(logits - logits.max())
    shares = odds / odds.sum()
    best = int(logits.argmax())
    return Answer(names[best], float(shares[best]), _by_name(names, shares))


def _by_name(names: list[str], values: np.ndarray) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))
