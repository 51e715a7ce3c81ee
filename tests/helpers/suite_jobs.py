"""Loaded models and rows, as the suites of `lmctl eval` are given them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import use_models

from lmctl.config.use_schema import EvalConfig
from lmctl.core.batch import Row
from lmctl.inference.suites.job import SuiteJob

DOCUMENTS = [
    Row(["the cat sits on the mat .", "the dog runs ."]),
    Row(["a b c d e f g h i j", "red", "the red cat , the blue dog ."]),
    Row(["blue dog runs on"]),
    Row(["k l m n o p", "the mat ."]),
]


def job(loaded: Any, rows: list[Row], tmp_path: Any, yields: Any = "documents", **settings: Any) -> SuiteJob:
    """All that a suite is given: a loaded model and rows."""
    config = EvalConfig(data=None, runner=None, model_path="", **{"batch": 3} | settings)
    return SuiteJob(loaded, lambda: iter(rows), yields, config, tmp_path)


def labelled(count: int, label: Any, pair: bool = False) -> list[Row]:
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(use_models.WORDS, rng.integers(1, 9))) for _ in range(2 * count)]
    texts = [lines[2 * n : 2 * n + 1 + pair] for n in range(count)]
    return [Row(text, label(rng), f"file:{n + 1}") for n, text in enumerate(texts)]


def logits_of(loaded: Any, rows: list[Row]) -> np.ndarray:
    with torch.no_grad():
        singles = [loaded.model(**loaded.tokenizer(*row.texts, return_tensors="pt")).logits[0] for row in rows]
    return torch.stack(singles).numpy()


NAMES = ["bad", "fair", "good"]


def classifier(tmp_path: Any, **settings: Any) -> Any:
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {name: place for place, name in enumerate(NAMES)}}
    return use_models.opened(use_models.bert(tmp_path, "BertForSequenceClassification", **({**names} | settings)))
