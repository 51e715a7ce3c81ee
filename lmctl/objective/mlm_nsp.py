"""BERT's pre-training: masked language modelling and next-sentence prediction on the same pairs (Devlin et al. 2019,
section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmctl.objective.base import Material
from lmctl.objective.masked_pairs import MaskedPairObjective
from lmctl.objective.pairs import NextSentencePairs, Pairs


@dataclass(frozen=True)
class MaskedLMAndNextSentence(MaskedPairObjective):
    """Two terms on each pair of segments: its masked tokens, and whether B follows A."""

    term: ClassVar[str] = "nsp"

    def pairs(self, material: Material) -> Pairs:
        return NextSentencePairs(material, self.short_share)
