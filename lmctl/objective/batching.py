"""From lists of pieces to rectangles with masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lmctl.core.counter_rng import CounterRng
from lmctl.objective.base import Material, Objective

if TYPE_CHECKING:
    from torch import Tensor


def padding_mask(name: str, lengths: np.ndarray, width: int) -> dict[str, Tensor]:
    """`{name: bool [R, width]}`, true where rows of `lengths` int64 [R] have pieces; nothing if all are full."""
    import torch

    if (lengths >= width).all():
        return {}
    return {name: torch.from_numpy(np.arange(width) < lengths[:, None])}


def rectangle(rows: Sequence[np.ndarray], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of different lengths as int64 [R, longest], filled up at the end, and their lengths int64 [R]."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    ids = np.full((len(rows), int(lengths.max(initial=0))), pad, dtype=np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
    return ids, lengths


def shifted_right(labels: np.ndarray, start: int) -> np.ndarray:
    """What a decoder reads to predict `labels` int64 [R, T]: `start`, then every label but the last."""
    inputs = np.full_like(labels, start)
    inputs[:, 1:] = labels[:, :-1]
    return inputs


def texts_of(material: Material, row: int, epoch: int, draws: CounterRng, rewritten: int) -> list[np.ndarray]:
    """The texts of a row of the store as pieces int64 [n]; the first `rewritten` of them augmented."""
    store = material.store
    first, last = int(store.documents[row]), int(store.documents[row + 1])
    texts = [
        np.asarray(store.tokens[store.sentences[text] : store.sentences[text + 1]], dtype=np.int64)
        for text in range(first, last)
    ]
    if material.rewrite is not None:
        generator = draws.named("augment").generator(epoch, row)
        texts = [
            material.rewrite(text, generator) if place < rewritten and len(text) else text
            for place, text in enumerate(texts)
        ]
    return texts


def text_lengths(material: Material) -> np.ndarray:
    """int64 [D, texts per row]: pieces of each text of each row."""
    store = material.store
    counts = np.diff(np.asarray(store.sentences))
    return counts.reshape(len(store.documents) - 1, -1)


SAMPLE = 256
"""Rows that are enough to tell their mean length to a percent or two."""


def mean_tokens(objective: Objective, material: Material) -> float:
    """Mean number of real tokens of the rows that `objective` makes of `material`, counted over SAMPLE rows spread over
    all of them, and over several epochs if they are fewer: for rows whose length comes of drawing and cutting.
    Augmentation, which may be slow, is left out."""
    examples = objective.examples(replace(material, rewrite=None))
    total = len(examples) * -(-SAMPLE // len(examples))
    epochs, rows = np.divmod(np.linspace(0, total - 1, SAMPLE).astype(np.int64), len(examples))
    return examples.collate(rows, epochs, CounterRng(0, "tokens per row")).tokens / SAMPLE
