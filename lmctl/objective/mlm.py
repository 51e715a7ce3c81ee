"""Masked language modelling on full rows (Devlin et al. 2019, section 3.1, Task 1; rows as in Liu et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lmctl.core.batch import Batch, Family, Kind, Targets, padding_mask
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import ConfigError
from lmctl.core.token_store import TokenStore
from lmctl.core.vocabulary import Vocabulary
from lmctl.objective.base import Examples, Material, Metric, Objective
from lmctl.objective.mask_rate import check_cached, check_rate, is_schedule, rate_at
from lmctl.objective.masking import DRAWS_PER_POSITION, mask_tokens
from lmctl.objective.packed_rows import FullRows
from lmctl.objective.unigram_baseline import unigram_baseline

if TYPE_CHECKING:
    from torch import Tensor

    from lmctl.plan import Plan


@dataclass(frozen=True)
class MaskedLM(Objective):
    """Predict the masked tokens of full rows of text."""

    mask_rate: Any = 0.15
    whole_words: bool = False

    def __post_init__(self) -> None:
        check_rate(self.mask_rate)

    cuts_rows: ClassVar[bool] = True
    reads: ClassVar[Kind] = "documents"
    families: ClassVar[tuple[Family, ...]] = ("encoder",)

    def check(self, plan: Plan) -> Iterator[ConfigError]:
        yield from check_cached(plan, self.mask_rate)

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
    progress: float = 1.0
    """Share of the budget that is spent."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def tokens_per_row(self) -> float:
        return self.rows.body + 2.0

    def at(self, progress: float) -> MaskedRows:
        changes = is_schedule(self.objective.mask_rate) or self.material.seq_len_at is not None
        return replace(self, progress=progress) if changes else self

    def collate(self, rows: np.ndarray, epochs: np.ndarray, draws: CounterRng) -> Batch:
        import torch

        vocabulary = self.material.vocabulary
        grows = self.material.seq_len_at
        seq_len = None if grows is None else grows(self.progress)
        ids, lengths = self.rows.gather(rows, epochs, self.material.rewrite, draws, seq_len)
        uniforms = draws.uniforms(epochs, rows, DRAWS_PER_POSITION * ids.shape[1])
        rate = rate_at(self.objective.mask_rate, self.progress)
        masked = mask_tokens(ids, uniforms, vocabulary, rate, self.objective.whole_words)
        inputs = {"input_ids": torch.from_numpy(masked.inputs)} | padding_mask("attention_mask", lengths, ids.shape[1])
        targets = {"mlm": Targets(torch.from_numpy(masked.positions), torch.from_numpy(masked.labels))}
        return Batch(self.material.task, inputs, targets, int(lengths.sum()))
