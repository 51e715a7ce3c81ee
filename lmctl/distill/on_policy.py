"""A student that writes, and a teacher that says what it thinks of every piece of it (Agarwal et al. 2024, "On-policy
distillation of language models", GKD, algorithm 1).

What a student meets when it writes is its own mistakes, not the data. So in a share of the steps, drawn by lot for
each, it writes the texts itself: a continuation behind the first part of a row, or the whole target of a translation.
The distillation losses then run over its own pieces, and the objective's loss, which would have it imitate itself, is
left out. No gradient goes through the drawing, as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from lmctl.distill.base import DistillTerm


@dataclass(frozen=True)
class OnPolicy(DistillTerm):
    """How often, and how, the student writes."""

    share: float = 0.5
    """Of the steps (lambda in the paper): 0 the data only, 1 its own texts only."""
    temperature: float = 1.0
    """Its pieces are drawn at."""
    prompt: float = 0.5
    """Running text: the part of a row, from its beginning, that stays."""
    max_new_tokens: Optional[int] = None
    """At most so many pieces of its own; null: as many as a row has room for."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is a probability, got {self.share}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if not 0 < self.prompt < 1:
            raise ValueError(f"prompt is a share between 0 and 1, got {self.prompt}")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be above 0, got {self.max_new_tokens}")

    def weight_at(self, progress: float) -> float:
        """It has no loss of its own: what it changes is the text."""
        return 0.0
