"""ALBERT's pre-training: masked language modelling and sentence-order prediction on the same pairs.

Lan et al. 2020, section 3.1. Both segments come from the same text, so their order cannot be predicted from the topic,
as next-sentence labels mostly can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmctl.objective.base import Material
from lmctl.objective.masked_pairs import MaskedPairObjective
from lmctl.objective.pairs import Pairs, SentenceOrderPairs


@dataclass(frozen=True)
class MaskedLMAndSentenceOrder(MaskedPairObjective):
    """Two terms on each pair of segments: its masked tokens, and whether A and B are swapped."""

    term: ClassVar[str] = "sop"

    def pairs(self, material: Material) -> Pairs:
        return SentenceOrderPairs(material, self.short_share)
