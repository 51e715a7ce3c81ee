"""Every key of every objective, augmentation and mix has an effect: on the rows, on the losses, or on the shares.

The keys are those of the dataclasses, so that a new one cannot be forgotten here.
"""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from small import documents, store, tokenizer
from small_tasks import Numbers, labelled, parallel

from lmctl.core.counter_rng import CounterRng
from lmctl.core.token_store import TokenStore
from lmctl.core.vocabulary import Vocabulary
from lmctl.mix.mix import Mix, Sampling, Task
from lmctl.mix.stream import MixStream, Position
from lmctl.objective.base import Material

CONF = Path(__file__).parents[2] / "conf"
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
NOT_HERE = {"there", "back", "variants", "temperature", "max_new_tokens"}
"""Keys of `augment=back_translate`, which needs two translation models (test_back_translate)."""
GIVEN_FIRST = {("TokenNoise", "rate"): {"style": "bert"}, ("Denoise", "mean_span"): {"noise_rate": 0.5}}
"""What must be set for a key to have a meaning."""


def components(group: str) -> list[tuple[type, str]]:
    """Each class of a group with each of its fields."""
    found = []
    for file in sorted((CONF / group).glob("*.yaml")):
        module, _, name = OmegaConf.load(file)["_target_"].rpartition(".")
        made = getattr(importlib.import_module(module), name)
        found += [(made, field.name) for field in dataclasses.fields(made) if field.name not in NOT_HERE]
    return [one for one in found if one[0].__name__ != "BackTranslate"]


def another(made: type, name: str, value: Any) -> Any:
    if made.__name__ == "Denoise" and name == "style":
        return "bart"
    if name in OTHER:
        return OTHER[name]
    if isinstance(value, bool):
        return not value
    return value * 2 if value < 0.5 else value / 2


def ids(one: tuple[type, str]) -> str:
    return f"{one[0].__name__}-{one[1]}"


def text_for(objective: Any) -> TokenStore:
    if objective.reads == "labelled":
        return labelled({"class": "class", "number": "number", "classes": "classes"}[objective.labels], 12, 0)
    return parallel(12, 0) if objective.reads == "parallel" else store(documents(30))


def seen_of(objective: Any) -> list[np.ndarray]:
    """The first batch, and its losses."""
    family = objective.families[0]
    examples = objective.examples(Material("task", text_for(objective), VOCABULARY, family, 24, batch_rows=4))
    batch = examples.collate(np.arange(4), np.zeros(4, dtype=int), CounterRng(0, "rows"))
    seen = [tensor.numpy() for tensor in batch.inputs.values()]
    seen += [tensor.numpy() for target in batch.targets.values() for tensor in (target.positions, target.labels)]
    if getattr(objective, "labels", "class") == "class":
        for term, target in batch.targets.items():
            seen.append(np.array(objective.weight(term)))
            if term == "rtd":  # what is right is known when a network has answered
                continue
            shape = len(target.labels), {"mlm": SIZE, "lm": SIZE, "label": 3}.get(term, 2)
            logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
            seen.append(objective.loss(term, logits, target.labels).numpy())
    return seen


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(
        x.shape == y.shape and x.dtype == y.dtype and (x == y).all() for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("one", components("objective"), ids=ids)
def test_every_key_of_an_objective_changes_the_batch_or_its_loss(one):
    made, name = one
    first = made(**GIVEN_FIRST.get((made.__name__, name), {}))
    other = dataclasses.replace(first, **{name: another(made, name, getattr(first, name))})
    assert same(seen_of(first), seen_of(first))
    assert not same(seen_of(first), seen_of(other))


@pytest.mark.parametrize("one", components("augment"), ids=ids)
def test_every_key_of_an_augmentation_changes_the_text(one):
    made, name = one
    first = made(**GIVEN_FIRST.get((made.__name__, name), {}))
    other = dataclasses.replace(first, **{name: another(made, name, getattr(first, name))})
    pieces = np.array([5, 66, 7, 3, 8, 67, 9, 3, 10, 11, 68, 12] * 4)  # sentences end with [SEP] in this vocabulary

    def rewritten(augment: Any) -> list[list[int]]:
        rewrite = augment.rewriter(TOKENIZER, VOCABULARY)
        return [rewrite(pieces, np.random.default_rng(seed)).tolist() for seed in range(12)]

    assert rewritten(first) == rewritten(first)
    assert rewritten(first) != rewritten(other)


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
    tried = {(made.__name__, name) for group in ("objective", "augment") for made, name in components(group)}
    assert len(tried) > 20
    assert {name for made, name in tried} >= {"mask_rate", "whole_words", "short_share", "noise_rate", "rate", "least"}
