"""Rows of a store as texts, their lengths, and the mean number of tokens per row."""

from __future__ import annotations

from dataclasses import replace
from itertools import compress, pairwise

import numpy as np

from lmctl.core.counter_rng import CounterRng
from lmctl.core.ragged import Ragged
from lmctl.objective.base import Material, Objective


def shifted_right(labels: np.ndarray, start: int) -> np.ndarray:
    """Decoder inputs for teacher forcing of `labels` int64 [R, T]: `start`, then every label but the last."""
    inputs = np.full_like(labels, start)
    inputs[:, 1:] = labels[:, :-1]
    return inputs


def texts_of(
    material: Material, rows: np.ndarray, epochs: np.ndarray, draws: CounterRng, rewritten: int
) -> list[Ragged]:
    """The first texts of the rows int64 [R] of the store, then their second ones if they have two; the first
    `rewritten` of each row augmented."""
    store = material.store
    first, count = store.documents[rows], int(store.documents[rows[0] + 1] - store.documents[rows[0]])
    begins = [store.sentences[first + place] for place in range(count + 1)]
    sides = [Ragged.spans(store.tokens, begin, end - begin) for begin, end in pairwise(begins)]
    if material.rewrite is None:
        return sides
    texts = [text for row in zip(*(side.rows() for side in sides), strict=True) for text in row]
    some = [place % count < rewritten and len(text) > 0 for place, text in enumerate(texts)]
    repeated = (generator for generator in draws.named("augment").generators(epochs, rows) for _ in range(count))
    changed = iter(material.rewrite.all(list(compress(texts, some)), compress(repeated, some)))
    texts = [next(changed) if is_changed else text for text, is_changed in zip(texts, some, strict=True)]
    return [Ragged.of(texts[side::count]) for side in range(count)]


def text_lengths(material: Material) -> np.ndarray:
    """int64 [D, texts per row]: number of tokens of each text of each row."""
    store = material.store
    counts = np.diff(np.asarray(store.sentences))
    return counts.reshape(len(store.documents) - 1, -1)


SAMPLE = 256
"""Sample size in rows that estimates the mean length to a percent or two."""


def mean_tokens(objective: Objective, material: Material) -> float:
    """Mean number of tokens without padding of the rows that `objective` makes of `material`, estimated from SAMPLE
    rows spread over all of them (and several epochs if they are fewer), for rows whose length is random or truncated.
    Augmentation, which may be slow, is left out."""
    examples = objective.examples(replace(material, rewrite=None))
    total = len(examples) * -(-SAMPLE // len(examples))
    epochs, rows = np.divmod(np.linspace(0, total - 1, SAMPLE).astype(np.int64), len(examples))
    return examples.collate(rows, epochs, CounterRng(0, "tokens per row")).tokens / SAMPLE
