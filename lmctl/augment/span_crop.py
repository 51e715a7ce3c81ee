"""`augment=span_crop`: cropping to a contiguous span of words (Wu et al. 2020, CLEAR; Meng et al. 2021, COCO-LM)."""

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
class SpanCrop(Augment):
    """Keep a random span of words, with a length between the share `least` and the whole text."""

    least: float = 0.7

    def __post_init__(self) -> None:
        if not 0 < self.least <= 1:
            raise ValueError(f"least is a share of the words above 0, up to 1, got {self.least}")

    def rewriter(self, tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary) -> Rewrite | None:
        def crop(pieces: np.ndarray, generator: np.random.Generator) -> np.ndarray:
            words = word_numbers(pieces, vocabulary)
            total = int(words[-1]) + 1
            keep = max(1, round(total * generator.uniform(self.least, 1.0)))
            first = int(generator.integers(total - keep + 1))
            return pieces[(words >= first) & (words < first + keep)]

        return Each(crop)
