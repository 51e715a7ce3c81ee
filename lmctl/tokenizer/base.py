"""The contract of the group `tokenizer`: how text becomes pieces."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lmctl.core.component import Component

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class TokenizerSpec(Component):
    """Group `tokenizer`: how text becomes pieces."""

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """JSON values that, with the training text, determine the tokenizer."""

    @abstractmethod
    def obtain(self, sentences: Iterator[str]) -> PreTrainedTokenizerFast:
        """Train on `sentences` (or load, and leave them alone)."""
