"""What the objectives must know of a tokenizer: its size, its special pieces, and where words begin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Vocabulary:
    """Ids of the special pieces and, per piece, whether it is special and whether it continues a word."""

    size: int
    pad: int
    unk: int
    cls: int
    sep: int
    mask: int
    special: np.ndarray
    """bool [V]: never masked, never drawn as a random replacement."""
    continues: np.ndarray
    """bool [V]: the piece belongs to the same word as the one before it (`##ing` in WordPiece)."""
