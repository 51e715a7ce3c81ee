"""Classifiers for `lmctl predict`, what it says, and what plain transformers says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import use_models
from use_models import records, said

TEXTS = ["the cat sits on the mat .", "a", "red dog , blue cat", "b c d e f g h i j", "the dog runs", "a , b , c"]
NAMES = ["neutral", "good", "bad"]


def classifier(folder: Path, **settings: Any) -> Path:
    """Every class is said of some of TEXTS: the bias takes away what all of them have in common."""
    place = use_models.bert(folder, "BertForSequenceClassification", **settings)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(place)
    network.classifier.bias.data -= torch.from_numpy(by_transformers(place, TEXTS).mean(axis=0)).float()
    return use_models.save(place, network)


def predicted(model: Path, typed: str = "", **settings: Any) -> list[dict[str, Any]]:
    return records(said("predict", model, typed, format="json", **settings))


def lines_of(texts: list[str]) -> str:
    return "".join(f"{text}\n" for text in texts)


def by_transformers(model: Path, *sides: list[str]) -> np.ndarray:
    """float64 [R, C]: logits of one row at a time, so that nothing is padded."""
    network = transformers.AutoModelForSequenceClassification.from_pretrained(model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    with torch.no_grad():
        rows = [network(**tokenizer(*row, return_tensors="pt")).logits[0] for row in zip(*sides, strict=True)]
    return torch.stack(rows).double().numpy()
