"""Masked language modelling together with a binary classification of segment pairs: two loss terms on the same rows."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lmctl.core.batch import Batch, Family, Kind, Targets, padding_mask
from lmctl.core.counter_rng import CounterRng
from lmctl.core.errors import ConfigError
from lmctl.core.token_store import TokenStore
from lmctl.core.vocabulary import Vocabulary
from lmctl.objective.base import LOSS, Examples, Material, Metric, Objective
from lmctl.objective.mask_rate import check_cached, check_rate, is_schedule, rate_at
from lmctl.objective.masking import DRAWS_PER_POSITION, mask_tokens
from lmctl.objective.pairs import DRAWS_PER_ROW, Pairs
from lmctl.objective.text_rows import mean_tokens
from lmctl.objective.unigram_baseline import unigram_baseline

if TYPE_CHECKING:
    from torch import Tensor

    from lmctl.plan import Plan


@dataclass(frozen=True)
class MaskedPairObjective(Objective):
    """Base class of masked language modelling with next-sentence or sentence-order prediction."""

    mask_rate: Any = 0.15
    whole_words: bool = False
    short_share: float = 0.1

    pairs_sentences = True
    term: ClassVar[str]
    """Name of the loss term of the pair."""
    reads: ClassVar[Kind] = "documents"
    families: ClassVar[tuple[Family, ...]] = ("encoder",)

    def __post_init__(self) -> None:
        check_rate(self.mask_rate)
        if not 0 <= self.short_share <= 1:
            raise ValueError(f"short_share is a share of the rows between 0 and 1, got {self.short_share}")

    def check(self, plan: Plan) -> Iterator[ConfigError]:
        yield from check_cached(plan, self.mask_rate)

    @abstractmethod
    def pairs(self, material: Material) -> Pairs:
        """The labelled pairs before masking."""

    def heads(self, task: str, store: TokenStore, vocabulary: Vocabulary) -> dict[str, int]:
        return {"mlm": vocabulary.size, "pair": 2}

    def head(self, task: str, term: str) -> str:
        return "pair" if term == self.term else term

    def examples(self, material: Material) -> MaskedPairs:
        return MaskedPairs(self, material, self.pairs(material))

    def baseline(self, term: str, labels: Tensor, train: TokenStore) -> dict[str, Metric]:
        if term != self.term:
            return unigram_baseline(train.histogram, labels)
        pairs = len(labels)
        return {
            LOSS: Metric(pairs * math.log(2), pairs, higher_is_better=False),
            "accuracy": Metric(pairs * 0.5, pairs, higher_is_better=True, share=True),
        }


@dataclass(frozen=True)
class MaskedPairs(Examples):
    """The rows of a `MaskedPairObjective`."""

    objective: MaskedPairObjective
    material: Material
    pairs: Pairs
    progress: float = 1.0
    """Share of the budget that is spent."""

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def tokens_per_row(self) -> float:
        return mean_tokens(self.objective, self.material)

    def at(self, progress: float) -> MaskedPairs:
        return replace(self, progress=progress) if is_schedule(self.objective.mask_rate) else self

    def collate(self, rows: np.ndarray, epochs: np.ndarray, draws: CounterRng) -> Batch:
        import torch

        # Each row draws as many numbers as the longest possible row needs: its draws must not depend on how long the
        # other rows of its micro-batch are.
        widest, vocabulary = self.material.seq_len, self.material.vocabulary
        uniforms = draws.uniforms(epochs, rows, DRAWS_PER_ROW + widest + DRAWS_PER_POSITION * widest)
        pair, mask = np.split(uniforms, [DRAWS_PER_ROW + widest], axis=1)
        text = self.pairs.gather(rows, epochs, pair, draws)
        width = text.ids.shape[1]
        mask = mask.reshape(len(rows), DRAWS_PER_POSITION, widest)[:, :, :width].reshape(len(rows), -1)
        rate = rate_at(self.objective.mask_rate, self.progress)
        masked = mask_tokens(text.ids, mask, vocabulary, rate, self.objective.whole_words)
        inputs = {"input_ids": torch.from_numpy(masked.inputs), "token_type_ids": torch.from_numpy(text.segments)}
        inputs |= padding_mask("attention_mask", text.lengths, width)
        first = torch.arange(len(rows)) * width
        targets = {
            "mlm": Targets(torch.from_numpy(masked.positions), torch.from_numpy(masked.labels)),
            self.objective.term: Targets(first, torch.from_numpy(text.labels)),
        }
        return Batch(self.material.task, inputs, targets, int(text.lengths.sum()))
