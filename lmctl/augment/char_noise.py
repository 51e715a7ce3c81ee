"""`augment=char_noise`: synthetic typing errors, in English and Chinese (Belinkov and Bisk 2018, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmctl.augment.base import Augment
from lmctl.core.typing_errors import swap_characters, typos
from lmctl.core.vocabulary import Rewrite, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class CharNoise(Augment):
    """Typing errors in a text, drawn anew in every epoch."""

    typo_rate: float = 0.03
    swap_rate: float = 0.02

    def __post_init__(self) -> None:
        for name in ("typo_rate", "swap_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability from 0 to 1, got {getattr(self, name)}")

    def rewriter(self, tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary) -> Rewrite | None:
        from lmctl.augment.tokens import TextCodec

        text = TextCodec(tokenizer)

        def mistype(pieces: np.ndarray, generator: np.random.Generator) -> np.ndarray:
            written = text.read(pieces)
            noisy = swap_characters(typos(written, self.typo_rate, generator), self.swap_rate, generator)
            return pieces if noisy == written else text.write(noisy, pieces)

        return mistype
