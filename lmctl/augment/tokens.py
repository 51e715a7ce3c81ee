"""Tokens as text, for augmentations that change letters, and as words, for those that must not tear words apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmctl.core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Text:
    """A tokenizer to which text that spells a special piece is text."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        backend = tokenizer.backend_tokenizer
        self.backend = type(backend).from_str(backend.to_str())
        self.backend.encode_special_tokens = True

    def read(self, pieces: np.ndarray) -> str:
        """The text of `pieces` int64 [n]."""
        return self.backend.decode(pieces.tolist(), skip_special_tokens=False)

    def write(self, text: str, otherwise: np.ndarray) -> np.ndarray:
        """The pieces of `text` int64 [m]; `otherwise` if there are none."""
        ids = self.backend.encode(text, add_special_tokens=False).ids
        return np.array(ids, dtype=np.int64) if ids else otherwise


def word_numbers(pieces: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """int64 [n]: to which word of the text, counted from 0, each of its pieces int64 [n] belongs."""
    starts = ~vocabulary.continues[pieces] | vocabulary.special[pieces]
    starts[:1] = True
    return np.cumsum(starts) - 1
