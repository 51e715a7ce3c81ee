"""A teacher that writes: its own texts take the place of the data's (Kim and Rush 2016, "Sequence-level knowledge
distillation", section 3.2).

A student of translation learns what the teacher's beam search finds for every source text. A student of running text
learns how the teacher goes on after the first pieces of every stretch of it. Either is written once, kept in the cache,
and then learnt from like any text; validation stays on the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from lmctl.distill.base import DistillTerm


@dataclass(frozen=True)
class TeacherTexts(DistillTerm):
    """How the teacher writes."""

    beams: int = 5
    """Translations: hypotheses that are followed; 1: greedy."""
    length_penalty: float = 1.0
    """Translations: hypotheses are compared by log-probability / length ** this."""
    sample: bool = True
    """Running text: drawn piece by piece; false: always the likeliest piece."""
    temperature: float = 1.0
    top_k: int = 0
    """Draw from the likeliest pieces only; 0: from all."""
    top_p: float = 1.0
    """Draw from the likeliest pieces that have this probability together."""
    prompt: int = 16
    """Running text: pieces of the data that the teacher goes on from."""
    length: int = 128
    """Running text: pieces of a stretch, the prompt included."""
    max_new_tokens: Optional[int] = None
    """Translations: at most so many pieces; null: twice the source's, and 20."""
    rows: int = 32
    """Texts that are written at the same time."""

    def __post_init__(self) -> None:
        for name in ("beams", "prompt", "length", "rows", "temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be above 0, got {self.max_new_tokens}")
        if self.prompt >= self.length:
            raise ValueError(f"length={self.length} leaves nothing to write behind a prompt of {self.prompt}")
        if self.top_k < 0:
            raise ValueError(f"top_k must not be negative (0: all pieces), got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is a probability above 0, got {self.top_p}")

    def weight_at(self, progress: float) -> float:
        """It has no loss of its own: what it changes is the text."""
        return 0.0

    def drawing(self) -> dict[str, Any]:
        """What transformers' `generate` is told where running text is written."""
        if not self.sample:
            return {"do_sample": False}
        return {"do_sample": True, "temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
