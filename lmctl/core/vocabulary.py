"""What the objectives must know of a tokenizer: its size, its special pieces, and where words begin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

NO_PIECE = -1
"""Id of a special piece that the tokenizer does not have."""


Rewrite: TypeAlias = "Callable[[np.ndarray, np.random.Generator], np.ndarray]"
"""An augmentation at work: the pieces of one text int64 [n] in, other pieces int64 [m] (m above 0) out."""


@dataclass(frozen=True)
class Vocabulary:
    """Ids of the special pieces and, per piece, whether it is special and whether it continues a word."""

    size: int
    pad: int
    unk: int
    cls: int
    sep: int
    mask: int
    """NO_PIECE in the tokenizers of most decoders."""
    special: np.ndarray
    """bool [V]: never masked, never drawn as a random replacement."""
    continues: np.ndarray
    """bool [V]: the piece belongs to the same word as the one before it (`##ing` in WordPiece)."""
    sentinels: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """int64 [n]: the pieces `<extra_id_0>`, `<extra_id_1>`, ... that stand for removed spans, as many as there are."""
