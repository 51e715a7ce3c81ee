"""Words as runs of pieces, for augmentations that must not tear them apart."""

from __future__ import annotations

import numpy as np

from lmctl.core.vocabulary import Vocabulary


def word_numbers(pieces: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """int64 [n]: to which word of the text, counted from 0, each of its pieces int64 [n] belongs."""
    starts = ~vocabulary.continues[pieces] | vocabulary.special[pieces]
    starts[:1] = True
    return np.cumsum(starts) - 1
