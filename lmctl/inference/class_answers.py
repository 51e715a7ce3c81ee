"""What a classifier says of texts: the label, how probable it is, and all classes' probabilities."""

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
    """What is said of one row."""

    label: str | float | list[str]
    """A class; a number; or those of several classes that are more probable than not."""
    probability: float | list[float] | None
    """Of the label, or of each label; a number has none."""
    probabilities: dict[str, float]
    """Of every class, by name: together 1, or each by itself where several may hold; empty for numbers."""


def labelled_tasks(loaded: Loaded) -> list[str]:
    """The model's own tasks that label something."""
    return [name for name, note in (loaded.tasks or {}).items() if note["label_kind"]]


def chosen_task(loaded: Loaded, task: str | None) -> str | None:
    """`task`, or the only one of the model's own that labels; None for a model that names no tasks. ConfigError if
    none or several do."""
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
    """Every row with what the classifier says of it, in order; None where a row has no texts. `pool` batches are
    sorted by length together."""
    names = names_of(classifier)

    def answer(some: list[NewRow]) -> list[tuple[NewRow, Answer | None]]:
        asked = [row for row in some if row.texts]
        logits = iter(classifier.logits([row.texts for row in asked], length) if asked else [])
        return [(row, _answer(row, next(logits), classifier.kind, names) if row.texts else None) for row in some]

    return by_length(rows, lambda row: sum(map(len, row.texts)), batch, answer, pool=pool)


def names_of(classifier: Classifier) -> list[str]:
    """The classes by their places; one that nobody named is LABEL_n, as transformers has it."""
    by_place = {place: name for name, place in classifier.labels.items()}
    return [by_place.get(place, f"LABEL_{place}") for place in range(max(by_place, default=-1) + 1)]


def _answer(row: NewRow, logits: np.ndarray, kind: str, names: list[str]) -> Answer:
    """Softmax where one class holds; a sigmoid of each, and 0.5 as the threshold, where several may."""
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
