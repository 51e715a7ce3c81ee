"""The parts of a tokenizer that objectives need: vocabulary size, special tokens, word boundaries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

NO_PIECE = -1
"""Id of a special token that the tokenizer does not have."""


Rewrite: TypeAlias = "Callable[[np.ndarray, np.random.Generator], np.ndarray]"
"""An augmentation as a function: token ids of one text int64 [n] in, int64 [m] (m above 0) out."""


@dataclass(frozen=True)
class Vocabulary:
    """Ids of the special tokens and, per token, whether it is special and whether it continues a word."""

    size: int
    pad: int
    unk: int
    cls: int
    sep: int
    mask: int
    """NO_PIECE in the tokenizers of most decoders."""
    special: np.ndarray
    """bool [V]: special tokens, never masked, never drawn as a random replacement."""
    continues: np.ndarray
    """bool [V]: the token continues the word of the token before it (`##ing` in WordPiece)."""
    sentinels: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """int64 [n]: the sentinel tokens `<extra_id_0>`, `<extra_id_1>`, ... that stand for removed spans, if there are
    any."""
