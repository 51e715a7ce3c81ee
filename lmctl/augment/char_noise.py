"""`augment=char_noise`: synthetic typing errors, in English and Chinese (Belinkov and Bisk 2018, section 4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmctl.augment.base import Augment
from lmctl.core.typing_errors import swap_characters, typos
from lmctl.core.vocabulary import Rewrite, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from lmctl.augment.tokens import TextCodec


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

        return Mistyped(self, TextCodec(tokenizer))

    def noisy(self, text: str, generator: np.random.Generator) -> str:
        """`text` with typing errors."""
        return swap_characters(typos(text, self.typo_rate, generator), self.swap_rate, generator)


class Mistyped(Rewrite):
    """Typing errors in token ids. Most of the time goes into decoding and encoding, which the tokenizer does on all
    cores for several texts at once."""

    def __init__(self, errors: CharNoise, codec: TextCodec) -> None:
        self.errors, self.codec = errors, codec

    def __call__(self, pieces: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return self.all([pieces], [generator])[0]

    def all(self, texts: Sequence[np.ndarray], generators: Iterable[np.random.Generator]) -> list[np.ndarray]:
        before, changed = self.codec.read(texts), list(texts)
        after = [self.errors.noisy(text, generator) for text, generator in zip(before, generators, strict=True)]
        places = [place for place, text in enumerate(after) if text != before[place]]
        for place, ids in zip(places, self.codec.write([after[place] for place in places]), strict=True):
            changed[place] = ids if len(ids) else texts[place]
        return changed
