"""Token ids as text, for character-level augmentation, and word boundaries, for word-level augmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmctl.core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class TextCodec:
    """Encodes and decodes text with a tokenizer; text that spells a special token stays text."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        backend = tokenizer.backend_tokenizer
        self.backend = type(backend).from_str(backend.to_str())
        self.backend.encode_special_tokens = True

    def read(self, pieces: np.ndarray) -> str:
        """The text of token ids `pieces` int64 [n]."""
        return self.backend.decode(pieces.tolist(), skip_special_tokens=False)

    def write(self, text: str, otherwise: np.ndarray) -> np.ndarray:
        """Token ids of `text` int64 [m]; `otherwise` if there are none."""
        ids = self.backend.encode(text, add_special_tokens=False).ids
        return np.array(ids, dtype=np.int64) if ids else otherwise


def word_numbers(pieces: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """int64 [n]: index of the word, from 0, of each token id in `pieces` int64 [n]."""
    starts = ~vocabulary.continues[pieces] | vocabulary.special[pieces]
    starts[:1] = True
    return np.cumsum(starts) - 1
