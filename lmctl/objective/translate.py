"""Machine translation with label smoothing (Vaswani et al. 2017, section 5.4; Szegedy et al. 2016, section 7)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lmctl.core.batch import Batch, Family, Kind, Targets, padding_mask
from lmctl.core.counter_rng import CounterRng
from lmctl.core.ragged import joined
from lmctl.core.token_store import TokenStore
from lmctl.core.vocabulary import Vocabulary
from lmctl.objective.base import LOSS, Examples, Material, Metric, Objective
from lmctl.objective.text_rows import shifted_right, text_lengths, texts_of
from lmctl.objective.unigram_baseline import unigram_baseline

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Translate(Objective):
    """Predict the target text token by token from the source text."""

    label_smoothing: float = 0.1

    reads: ClassVar[Kind] = "parallel"
    families: ClassVar[tuple[Family, ...]] = ("seq2seq",)

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is a share from 0 to below 1, got {self.label_smoothing}")

    def heads(self, task: str, store: TokenStore, vocabulary: Vocabulary) -> dict[str, int]:
        return {"lm": vocabulary.size}

    def examples(self, material: Material) -> ParallelRows:
        return ParallelRows(material)

    def loss(self, term: str, logits: Tensor, labels: Tensor) -> Tensor:
        from lmctl.kernels.cross_entropy import cross_entropy

        return cross_entropy(logits, labels, self.label_smoothing)

    def metrics(self, term: str, logits: Tensor, labels: Tensor) -> dict[str, Metric]:
        """Metrics with the loss without label smoothing, which is used in training only."""
        plain = super().loss(term, logits, labels)
        return super().metrics(term, logits, labels) | {LOSS: Metric(plain, len(labels), higher_is_better=False)}

    def baseline(self, term: str, labels: Tensor, train: TokenStore) -> dict[str, Metric]:
        return unigram_baseline(train.histogram, labels)


@dataclass(frozen=True)
class ParallelRows(Examples):
    """The rows of `Translate`: both sides end with [SEP], which the target side predicts as well."""

    material: Material

    def __len__(self) -> int:
        return len(self.material.store.documents) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 [D]: length of the longer side."""
        return np.minimum(text_lengths(self.material).max(axis=1) + 1, self.material.seq_len)

    @property
    def tokens_per_row(self) -> float:
        return float(np.minimum(text_lengths(self.material) + 1, self.material.seq_len).sum(axis=1).mean())

    def collate(self, rows: np.ndarray, epochs: np.ndarray, draws: CounterRng) -> Batch:
        room, vocabulary = self.material.seq_len - 1, self.material.vocabulary
        source, target = (
            joined([text.cut(room), vocabulary.sep], len(rows), vocabulary.pad)
            for text in texts_of(self.material, rows, epochs, draws, 1)
        )
        return seq2seq_batch(self.material, *source, *target)


def seq2seq_batch(
    material: Material, source: np.ndarray, source_lengths: np.ndarray, target: np.ndarray, target_lengths: np.ndarray
) -> Batch:
    """A batch that predicts `target` int64 [R, T] from `source` int64 [R, L]; the first `..._lengths` int64 [R] tokens
    of each row are no padding."""
    import torch

    real = np.arange(target.shape[1]) < target_lengths[:, None]
    positions = np.flatnonzero(real)
    inputs = {
        "input_ids": torch.from_numpy(source),
        "decoder_input_ids": torch.from_numpy(shifted_right(target, material.vocabulary.pad)),
    }
    inputs |= padding_mask("attention_mask", source_lengths, source.shape[1])
    inputs |= padding_mask("decoder_attention_mask", target_lengths, target.shape[1])
    targets = Targets(torch.from_numpy(positions), torch.from_numpy(target.reshape(-1)[positions]))
    return Batch(material.task, inputs, {"lm": targets}, int(source_lengths.sum() + target_lengths.sum()))
