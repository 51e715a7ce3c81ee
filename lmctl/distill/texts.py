"""`distill=sequence`: the teacher's texts replace the training texts (Kim and Rush 2016, "Sequence-level knowledge
distillation", section 3.2).

A translation student is trained on the teacher's beam search result for every source text. A language model is trained
on the teacher's continuations after the first tokens of every stretch of text. Both are generated once, kept in the
cache, and used like any text; validation stays on the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from lmctl.distill.base import DistillTerm


@dataclass(frozen=True)
class TeacherTexts(DistillTerm):
    """Generation settings of the teacher."""

    beams: int = 5
    """Translations: beam size; 1: greedy."""
    length_penalty: float = 1.0
    """Translations: exponent of the length that a beam's log-probability is divided by."""
    sample: bool = True
    """Language modelling: sampling; false: greedy."""
    temperature: float = 1.0
    top_k: int = 0
    """Top-k sampling: from the k most likely tokens only; 0: from all."""
    top_p: float = 1.0
    """Nucleus sampling: from the most likely tokens with this total probability."""
    prompt: int = 16
    """Language modelling: prompt length, tokens of the data."""
    length: int = 128
    """Language modelling: total length, the prompt included."""
    max_new_tokens: Optional[int] = None
    """Translations: limit of tokens; null: 20 more than twice the source's."""
    rows: int = 32
    """Batch size of the generation."""

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
        """0: it has no loss of its own, it changes the texts."""
        return 0.0

    def drawing(self) -> dict[str, Any]:
        """Sampling arguments of transformers' `generate`."""
        if not self.sample:
            return {"do_sample": False}
        return {"do_sample": True, "temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
