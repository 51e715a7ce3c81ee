"""Base class of the group `augment`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from lmctl.core.component import Component

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from lmctl.core.vocabulary import Rewrite, Vocabulary


class Augment(Component):
    """Group `augment`: data augmentation of training text."""

    @abstractmethod
    def rewriter(self, tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary) -> Rewrite | None:
        """The augmentation for token ids of this tokenizer; None: texts are unchanged."""
