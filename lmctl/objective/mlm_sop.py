"""ALBERT's pre-training: masked words and sentence order on the same pairs (Lan et al. 2020, section 3.1).

Both segments come from the same text, so their order cannot be told from their topics, as whether B belongs to A
at all mostly can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmctl.objective.base import Material
from lmctl.objective.masked_pairs import MaskedPairObjective
from lmctl.objective.pairs import Pairs, SentenceOrderPairs


@dataclass(frozen=True)
class MaskedLMAndSentenceOrder(MaskedPairObjective):
    """Two terms on each pair of segments: its masked pieces, and whether A and B have changed places."""

    term: ClassVar[str] = "sop"

    def pairs(self, material: Material) -> Pairs:
        return SentenceOrderPairs(material, self.short_share)
