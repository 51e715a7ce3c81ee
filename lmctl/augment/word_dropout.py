"""`augment=word_dropout`: drop words, each with the same probability (Iyyer et al. 2015, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmctl.augment.base import Augment
from lmctl.augment.tokens import word_numbers
from lmctl.core.vocabulary import Each, Rewrite, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class WordDropout(Augment):
    """Drop words; at least one stays."""

    rate: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate is a probability below 1, got {self.rate}")

    def rewriter(self, tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary) -> Rewrite | None:
        def drop(pieces: np.ndarray, generator: np.random.Generator) -> np.ndarray:
            words = word_numbers(pieces, vocabulary)
            draws = generator.random(int(words[-1]) + 1)
            kept = draws >= self.rate
            kept[draws.argmax()] = True
            return pieces[kept[words]]

        return Each(drop)
