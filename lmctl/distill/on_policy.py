"""On-policy distillation: the student generates texts, the teacher gives a loss for each token of them (Agarwal et al.
2024, "On-policy distillation of language models", GKD, algorithm 1).

A student that generates meets its own mistakes, which are not in the data. So in a random share of the steps it
generates the texts itself: a continuation after the first part of a row, or the whole target of a translation. The
distillation losses then run over the generated tokens, and the objective's loss is left out, because it would train the
student to imitate itself. No gradient flows through the sampling, as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from lmctl.distill.base import DistillTerm


@dataclass(frozen=True)
class OnPolicy(DistillTerm):
    """Share of on-policy steps, and sampling settings."""

    share: float = 0.5
    """Share of the steps on generated texts (lambda in the paper): 0 data only, 1 generated only."""
    temperature: float = 1.0
    """Sampling temperature."""
    prompt: float = 0.5
    """Language modelling: the part of a row, from its beginning, that is kept as the prompt."""
    max_new_tokens: Optional[int] = None
    """Limit of generated tokens; null: up to the length of a row."""

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
        """0: it has no loss of its own, it changes the texts."""
        return 0.0
