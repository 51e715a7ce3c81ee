"""The contract of the group `augment`: how a text is changed before it is learnt from."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from lmctl.core.component import Component

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from lmctl.core.vocabulary import Rewrite, Vocabulary


class Augment(Component):
    """Group `augment`: how a text is changed before it is learnt from."""

    @abstractmethod
    def rewriter(self, tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary) -> Rewrite | None:
        """The augmentation for texts of this tokenizer; None: texts stay as they are."""
