"""Masked language modelling on full rows (Devlin et al. 2019, section 3.1, Task 1; rows as in Liu et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lmctl.core.batch import Batch, Family, Kind, Targets, padding_mask
from lmctl.core.counter_rng import CounterRng
from lmctl.core.token_store import TokenStore
from lmctl.core.vocabulary import Vocabulary
from lmctl.objective.base import Examples, Material, Metric, Objective
from lmctl.objective.masking import DRAWS_PER_POSITION, mask_tokens
from lmctl.objective.packed_rows import FullRows
from lmctl.objective.unigram_baseline import unigram_baseline

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MaskedLM(Objective):
    """Predict the masked tokens of full rows of text."""

    mask_rate: float = 0.15
    whole_words: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.mask_rate < 1:
            raise ValueError(f"mask_rate is a share of the tokens between 0 and 1, got {self.mask_rate}")

    reads: ClassVar[Kind] = "documents"
    families: ClassVar[tuple[Family, ...]] = ("encoder",)

    def heads(self, task: str, store: TokenStore, vocabulary: Vocabulary) -> dict[str, int]:
        return {"mlm": vocabulary.size}

    def examples(self, material: Material) -> MaskedRows:
        rows = FullRows(material.store, material.vocabulary, material.seq_len)
        return MaskedRows(self, material, rows)

    def baseline(self, term: str, labels: Tensor, train: TokenStore) -> dict[str, Metric]:
        return unigram_baseline(train.histogram, labels)


@dataclass(frozen=True)
class MaskedRows(Examples):
    """The rows of `MaskedLM`."""

    objective: MaskedLM
    material: Material
    rows: FullRows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def tokens_per_row(self) -> float:
        return self.rows.body + 2.0

    def collate(self, rows: np.ndarray, epochs: np.ndarray, draws: CounterRng) -> Batch:
        import torch

        vocabulary = self.material.vocabulary
        ids, lengths = self.rows.gather(rows, epochs, self.material.rewrite, draws)
        uniforms = draws.uniforms(epochs, rows, DRAWS_PER_POSITION * ids.shape[1])
        masked = mask_tokens(ids, uniforms, vocabulary, self.objective.mask_rate, self.objective.whole_words)
        inputs = {"input_ids": torch.from_numpy(masked.inputs)} | padding_mask("attention_mask", lengths, ids.shape[1])
        targets = {"mlm": Targets(torch.from_numpy(masked.positions), torch.from_numpy(masked.labels))}
        return Batch(self.material.task, inputs, targets, int(lengths.sum()))
