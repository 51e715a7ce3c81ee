"""Token ids as text, for character-level augmentation, and word boundaries, for word-level augmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmctl.core.text_encoder import TextEncoder
from lmctl.core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class TextCodec:
    """Encodes and decodes text with a tokenizer; text that spells a special token stays text."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.backend = tokenizer.backend_tokenizer
        self.encode = TextEncoder(self.backend)

    def read(self, pieces: np.ndarray) -> str:
        """The text of token ids `pieces` int64 [n]."""
        return self.backend.decode(pieces.tolist(), skip_special_tokens=False)

    def write(self, text: str, otherwise: np.ndarray) -> np.ndarray:
        """Token ids of `text` int64 [m]; `otherwise` if there are none."""
        ids, _ = self.encode([text])
        return ids.astype(np.int64) if len(ids) else otherwise


def word_numbers(pieces: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """int64 [n]: index of the word, from 0, of each token id in `pieces` int64 [n]."""
    starts = ~vocabulary.continues[pieces] | vocabulary.special[pieces]
    starts[:1] = True
    return np.cumsum(starts) - 1
