"""`adversary=noise`: data augmentation with a consistency loss between clean and noisy rows (noise: Belinkov and Bisk
2018, "Synthetic and natural noise both break neural machine translation"; loss on both copies: Cheng et al. 2018,
"Towards robust neural machine translation", section 3; consistency: Xie et al. 2020, "Unsupervised data augmentation").

The noise is any option of the group `augment`. Targets do not change: classification and translation may have any word
changed; masked language modelling keeps masked positions; causal language modelling keeps each word's number of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lmctl.adversary.base import Adversary, AttackedBatch, Outcome, View
from lmctl.augment.base import Augment
from lmctl.config.schema import positive


@dataclass(frozen=True)
class Noise(Adversary):
    """Loss = clean loss + `weight` * (loss of the noisy copies + `consistency` * divergence between both
    predictions)."""

    augment: Augment
    weight: float = 1.0
    consistency: float = 1.0

    def __post_init__(self) -> None:
        positive(weight=self.weight)
        if self.consistency < 0:
            raise ValueError(f"consistency must not be negative, got {self.consistency}")

    @property
    def passes(self) -> float:
        return 2.0

    @property
    def augments(self) -> Mapping[str, Augment]:
        return {"augment": self.augment}

    def forward_backward(self, micro: AttackedBatch) -> Outcome:
        noisy = View(weight=self.weight, fresh=True, augment=self.augment)
        report = micro.forward_backward(View(), noisy, agree=self.weight * self.consistency, last=True)
        return Outcome(*report.losses)
