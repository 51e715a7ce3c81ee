"""Causal language modelling on packed documents (GPT; no attention across documents as in Zhao et al. 2024).

The corpus is one stream, every document ended by [SEP], cut into full rows without padding. The [SEP] between two
documents belongs to the second one, whose start it marks; attention does not cross documents, and positions are counted
from the start of the document.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lmctl.core.batch import Batch, Family, Kind, Targets
from lmctl.core.counter_rng import CounterRng
from lmctl.core.token_store import TokenStore
from lmctl.core.vocabulary import Vocabulary
from lmctl.objective.base import Examples, Material, Metric, Objective
from lmctl.objective.packed_rows import PackedRows
from lmctl.objective.unigram_baseline import unigram_baseline

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CausalLM(Objective):
    """Next-token prediction."""

    separate_documents: bool = True

    cuts_rows: ClassVar[bool] = True
    reads: ClassVar[Kind] = "documents"
    families: ClassVar[tuple[Family, ...]] = ("decoder",)

    def heads(self, task: str, store: TokenStore, vocabulary: Vocabulary) -> dict[str, int]:
        return {"lm": vocabulary.size}

    def examples(self, material: Material) -> NextPieceRows:
        return NextPieceRows(self, material, PackedRows(material.store, material.vocabulary, material.seq_len + 1))

    def baseline(self, term: str, labels: Tensor, train: TokenStore) -> dict[str, Metric]:
        return unigram_baseline(train.histogram, labels)


@dataclass(frozen=True)
class NextPieceRows(Examples):
    """The rows of `CausalLM`."""

    objective: CausalLM
    material: Material
    rows: PackedRows
    progress: float = 1.0
    """Share of the budget that is spent."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def tokens_per_row(self) -> float:
        return float(self.rows.width - 1)

    def at(self, progress: float) -> NextPieceRows:
        return self if self.material.seq_len_at is None else replace(self, progress=progress)

    def collate(self, rows: np.ndarray, epochs: np.ndarray, draws: CounterRng) -> Batch:
        grows = self.material.seq_len_at
        width = None if grows is None else grows(self.progress) + 1
        ids, lengths = self.rows.gather(rows, epochs, self.material.rewrite, draws, width)
        return next_piece_batch(self.material, ids, lengths, self.objective.separate_documents)


def next_piece_batch(
    material: Material, ids: np.ndarray, lengths: np.ndarray, separate_documents: bool, first: np.ndarray | int = 0
) -> Batch:
    """A batch for next-token prediction of `ids` int64 [R, L + 1]; of each row the first `lengths` int64 [R] tokens are
    no padding. Targets start at position `first` (int64 [R], or the same in all rows)."""
    import torch

    inputs, labels = ids[:, :-1], ids[:, 1:]
    real = np.arange(inputs.shape[1]) < lengths[:, None] - 1
    batch = {"input_ids": torch.from_numpy(np.ascontiguousarray(inputs))}
    begins = inputs == material.vocabulary.sep
    if separate_documents and begins[:, 1:].any():
        documents, positions = separate(begins, real)
        batch |= {"documents": torch.from_numpy(documents), "position_ids": torch.from_numpy(positions)}
    elif not real.all():
        batch["attention_mask"] = torch.from_numpy(real)
    predicted = real & (np.arange(inputs.shape[1]) >= np.reshape(first, (-1, 1)))
    positions = np.flatnonzero(predicted)
    targets = Targets(torch.from_numpy(positions), torch.from_numpy(labels.reshape(-1)[positions]))
    return Batch(material.task, batch, {"lm": targets}, int(real.sum()))


def separate(begins: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Document indices within each row, int64 [R, L], -1 where not `real`; and positions within documents, int64 [R,
    L]. A document starts where `begins` bool [R, L] is set, and at the start of the row."""
    starts = begins.copy()
    starts[:, 0] = True
    places = np.arange(begins.shape[1])
    positions = places - np.maximum.accumulate(np.where(starts, places, 0), axis=1)
    return np.where(real, starts.cumsum(axis=1) - 1, -1), positions
