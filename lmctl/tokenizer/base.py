"""Base class of the group `tokenizer`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lmctl.core.component import Component

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class TokenizerSpec(Component):
    """Group `tokenizer`: a tokenizer to train or to load."""

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """JSON values that, with the training text, determine the tokenizer (part of its cache key)."""

    @abstractmethod
    def obtain(self, sentences: Iterator[str]) -> PreTrainedTokenizerFast:
        """Train on `sentences`, or load a tokenizer without reading them."""
