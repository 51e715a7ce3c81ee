"""`adversary=noise`: a noisy copy of the rows must be understood as well, and alike (noise: Belinkov and Bisk 2018,
"Synthetic and natural noise both break neural machine translation"; learning from both copies: Cheng et al. 2018,
"Towards robust neural machine translation", section 3; consistency: Xie et al. 2020, "Unsupervised data augmentation").

The noise is any option of the group `augment`. What a row is asked stays: whole rows and translations have any of
their words changed, masked words keep their places, a language model keeps every word's number of pieces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmctl.augment.base import Augment
from lmctl.config.schema import positive
from lmctl.core.passes import Outcome, Pass


@dataclass(frozen=True)
class Noise:
    """The loss of the rows, and `weight` times that of their noisy copies with `consistency` times how far the
    answers are apart."""

    augment: Augment
    weight: float = 1.0
    consistency: float = 1.0

    backwards: ClassVar[float] = 2.0
    needs_dropout: ClassVar[bool] = False

    def __post_init__(self) -> None:
        positive(weight=self.weight)
        if self.consistency < 0:
            raise ValueError(f"consistency must not be negative, got {self.consistency}")

    def drive(self, micro: Pass) -> Outcome:
        from lmctl.adversary.divergence import divergences

        clean = micro.forward(logits=True)
        noisy = micro.noisy(self.augment).forward(fresh=True, last=True, logits=True)
        apart = micro.penalty(divergences(micro.batch, clean.logits, noisy.logits))
        added = micro.loss(noisy.terms) + self.consistency * apart
        micro.backward(micro.loss(clean.terms) + self.weight * added)
        return Outcome(clean.terms, noisy.terms)
