"""`augment=none`: no augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmctl.augment.base import Augment
from lmctl.core.vocabulary import Rewrite, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Unchanged(Augment):
    """No augmentation."""

    def rewriter(self, tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary) -> Rewrite | None:
        return None
