"""`augment=shuffle`: sentence permutation (Lewis et al. 2020, BART, section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmctl.augment.base import Augment
from lmctl.core.vocabulary import Each, Rewrite, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ENDS = ".!?。！？…"
"""Sentence-final punctuation of English and Chinese."""


@dataclass(frozen=True)
class Shuffle(Augment):
    """Permute sentences, in `rate` of the texts."""

    rate: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate is a probability from 0 to 1, got {self.rate}")

    def rewriter(self, tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary) -> Rewrite | None:
        ends = np.zeros(vocabulary.size, dtype=bool)
        for number in tokenizer.get_vocab().values():
            text = tokenizer.decode([number]).strip().removeprefix("##")
            ends[number] = bool(text) and all(sign in ENDS for sign in text)
        ends |= np.arange(vocabulary.size) == vocabulary.sep

        def shuffle(pieces: np.ndarray, generator: np.random.Generator) -> np.ndarray:
            if generator.random() >= self.rate:
                return pieces
            sentences = np.split(pieces, np.flatnonzero(ends[pieces[:-1]]) + 1)
            return np.concatenate([sentences[place] for place in generator.permutation(len(sentences))])

        return Each(shuffle)
