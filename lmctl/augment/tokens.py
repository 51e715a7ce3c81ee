"""Token ids as text, for character-level augmentation, and word boundaries, for word-level augmentation."""

from __future__ import annotations

from collections.abc import Sequence
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

    def read(self, texts: Sequence[np.ndarray]) -> list[str]:
        """The texts of token ids int64 [n] each."""
        return list(self.backend.decode_batch([pieces.tolist() for pieces in texts], skip_special_tokens=False))

    def write(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids int64 [m] of each text; there may be none."""
        found = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in found]


def word_numbers(pieces: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """int64 [n]: index of the word, from 0, of each token id in `pieces` int64 [n]."""
    starts = ~vocabulary.continues[pieces] | vocabulary.special[pieces]
    starts[:1] = True
    return np.cumsum(starts) - 1
