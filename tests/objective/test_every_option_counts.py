"""Every key of every objective, augmentation and mix has an effect: on the rows, on the losses, or on the shares.

The keys are those of the dataclasses, so that a new one cannot be forgotten here.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from small import documents, store, tokenizer
from small_tasks import Numbers, labelled, parallel
from walked import classes

from lmctl.augment.back_translate import BackTranslate
from lmctl.augment.base import Augment
from lmctl.core.counter_rng import CounterRng
from lmctl.core.token_store import TokenStore
from lmctl.core.vocabulary import Vocabulary
from lmctl.mix.mix import Mix, Sampling, Task
from lmctl.mix.stream import MixStream, Position
from lmctl.objective.base import Material, Objective
from lmctl.objective.denoise import Denoise

TOKENIZER = tokenizer()
SIZE = 200
VOCABULARY = Vocabulary(
    SIZE, 0, 1, 2, 3, 4, np.arange(SIZE) < 5, (np.arange(SIZE) >= 65) & (np.arange(SIZE) < 85), np.arange(100, 200)
)
OTHER: dict[str, Any] = {
    "style": "bert",
    "end_of": "sentence",
    "labels": "number",
    "typo_rate": 0.3,
    "swap_rate": 0.3,
    "tau": 9.0,
    "least": 0.2,
    "short_share": 0.9,
    "mean_span": 1.5,
    "label_smoothing": 0.4,
}
"""Another legal value, where one cannot be made of the value itself."""
GIVEN_FIRST = {("TokenNoise", "rate"): {"style": "bert"}, ("Denoise", "mean_span"): {"noise_rate": 0.5}}
"""What must be set for a key to have a meaning."""


COMPONENTS: list[tuple[Any, str]] = [
    (made, field.name)
    for group in ("objective", "augment")
    for made in classes(group).values()
    if made is not BackTranslate  # it needs two translation models: test_back_translate.py
    for field in dataclasses.fields(made)
]
"""Each class with each of its fields."""


def another(made: Any, name: str, value: Any) -> Any:
    if made is Denoise and name == "style":
        return "bart"
    if name in OTHER:
        return OTHER[name]
    if isinstance(value, bool):
        return not value
    return value * 2 if value < 0.5 else value / 2


def text_for(objective: Any) -> TokenStore:
    if objective.reads == "labelled":
        return labelled({"class": "class", "number": "number", "classes": "classes"}[objective.labels], 12, 0)
    return parallel(12, 0) if objective.reads == "parallel" else store(documents(30))


def batched(objective: Objective) -> list[Any]:
    """The first batch, and its losses."""
    family = objective.families[0]
    examples = objective.examples(Material("task", text_for(objective), VOCABULARY, family, 24, batch_rows=4))
    batch = examples.collate(np.arange(4), np.zeros(4, dtype=int), CounterRng(0, "rows"))
    seen = list(batch.inputs.values())
    seen += [tensor for target in batch.targets.values() for tensor in (target.positions, target.labels)]
    if objective.label_kind in (None, "class"):
        for term, target in batch.targets.items():
            seen.append(np.array(objective.weight(term)))
            if term == "rtd":  # what is right is known when a network has answered
                continue
            shape = len(target.labels), {"mlm": SIZE, "lm": SIZE, "label": 3}.get(term, 2)
            logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
            seen.append(objective.loss(term, logits, target.labels))
    return [(tensor.dtype, tensor.tolist()) for tensor in seen]


def rewritten(augment: Augment) -> list[Any]:
    """A text of sentences that end with [SEP], as several rows have it."""
    pieces, rewrite = np.array([5, 66, 7, 3, 8, 67, 9, 3, 10, 11, 68, 12] * 4), augment.rewriter(TOKENIZER, VOCABULARY)
    assert rewrite is not None
    return [rewrite(pieces, np.random.default_rng(seed)).tolist() for seed in range(12)]


@pytest.mark.parametrize(("made", "name"), COMPONENTS, ids=lambda value: getattr(value, "__name__", value))
def test_every_key_changes_rows_or_their_losses(made: Any, name: str):
    first = made(**GIVEN_FIRST.get((made.__name__, name), {}))
    other = dataclasses.replace(first, **{name: another(made, name, getattr(first, name))})
    seen = batched if issubclass(made, Objective) else rewritten
    assert seen(first) == seen(first)
    assert seen(first) != seen(other)


CURVE = [[0.0, 1.0], [1.0, 9.0]]
ELSEWHERE = {"objective", "data", "augment", "tasks", "sampling", "balance", "conflict_every"}
"""Components, and what does not concern the rows of a step (test_mix_runs)."""


def made_of(task: dict[str, Any], sampling: dict[str, Any]) -> list[Any]:
    """Rows and loss factors of some windows in the middle of a run whose first task is `task`."""
    rest: Any = {"objective": None, "data": None}
    mix = Mix({"a": Task(**rest, **{"weight": CURVE, **task}), "b": Task(**rest)}, Sampling(**sampling))
    stream = MixStream(mix, {"a": Numbers("a", 50, 10.0), "b": Numbers("b", 20, 40.0)}, 1, 8, None)
    at, seen = Position(), []
    for _ in range(6):
        window = stream.window(at, 0.6, None, 0, 1)
        seen += [window.factors, [(batch.task, batch.inputs["input_ids"].tolist()) for batch in window.batches]]
        at = window.after
    return seen


@pytest.mark.parametrize(
    ("task", "sampling"),
    [
        ({"weight": 3.0}, {}),
        ({"between": "step"}, {}),
        ({"loss_weight": 2.0}, {}),
        ({}, {"unit": "tokens"}),
        ({}, {"alpha": 0.7}),
    ],
)
def test_every_key_of_a_mix_changes_rows_or_factors(task, sampling):
    assert made_of({}, {}) == made_of({}, {})
    assert made_of({}, {}) != made_of(task, sampling)


def test_every_key_of_a_mix_is_tried():
    names = {field.name for made in (Task, Sampling, Mix) for field in dataclasses.fields(made)}
    assert names - ELSEWHERE == {"weight", "between", "loss_weight", "unit", "alpha"}


def test_every_key_is_tried():
    """What is left out above is named, and no more than that."""
    assert len(COMPONENTS) > 20
    assert {name for _, name in COMPONENTS} >= {
        "mask_rate",
        "whole_words",
        "short_share",
        "noise_rate",
        "rate",
        "least",
    }
