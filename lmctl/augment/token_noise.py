"""`augment=token_noise`: random token replacement, SwitchOut or BERT style.

With `style: switchout` the number of replaced tokens is drawn first, p(n) proportional to exp(-n / tau), then their
positions, then their replacements: any ordinary token of the vocabulary (Wang et al. 2018, "SwitchOut", section 3.2).
With `style: bert` tokens are corrupted as in BERT's masking, but not predicted: of `rate` of the tokens 80 % become
[MASK], 10 % a random token, 10 % stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmctl.augment.base import Augment
from lmctl.core.vocabulary import NO_PIECE, Each, Rewrite, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

STYLES = ("switchout", "bert")


@dataclass(frozen=True)
class TokenNoise(Augment):
    """Replace tokens at random."""

    style: str = "switchout"
    tau: float = 1.0
    rate: float = 0.15

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise ValueError(f"style must be one of {', '.join(STYLES)}, got {self.style!r}")
        if self.tau <= 0:
            raise ValueError(f"tau must be above 0, got {self.tau}")
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate is a share of the pieces from 0 to 1, got {self.rate}")

    def rewriter(self, tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary) -> Rewrite | None:
        ordinary = np.flatnonzero(~vocabulary.special)
        mask = vocabulary.mask

        def switchout(pieces: np.ndarray, generator: np.random.Generator) -> np.ndarray:
            weights = np.exp(-np.arange(len(pieces) + 1) / self.tau)
            count = int(generator.choice(len(pieces) + 1, p=weights / weights.sum()))
            out = pieces.copy()
            out[generator.choice(len(pieces), size=count, replace=False)] = generator.choice(ordinary, size=count)
            return out

        def bert(pieces: np.ndarray, generator: np.random.Generator) -> np.ndarray:
            chosen, what = generator.random((2, len(pieces)))
            other = generator.choice(ordinary, size=len(pieces))
            hidden = other if mask == NO_PIECE else np.full(len(pieces), mask)
            changed = np.where(what < 0.8, hidden, np.where(what < 0.9, other, pieces))
            return np.where(chosen < self.rate, changed, pieces)

        return Each(switchout if self.style == "switchout" else bert)
