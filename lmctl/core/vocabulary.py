"""The parts of a tokenizer that objectives need: vocabulary size, special tokens, word boundaries, augmentation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

NO_PIECE = -1
"""Id of a special token that the tokenizer does not have."""


class Rewrite(ABC):
    """An augmentation at work: token ids of a text int64 [n] in, int64 [m] (m above 0) out."""

    @abstractmethod
    def __call__(self, pieces: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """One text, changed as `generator` draws."""

    def all(self, texts: Sequence[np.ndarray], generators: Iterable[np.random.Generator]) -> list[np.ndarray]:
        """Several texts, each with its generator: what they would become one after the other. A generator is used up
        before the next one is taken, so they may be one that begins anew (`CounterRng.generators`)."""
        return [self(pieces, generator) for pieces, generator in zip(texts, generators, strict=True)]


class Each(Rewrite):
    """An augmentation that is a function of one text."""

    def __init__(self, function: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> None:
        self.function = function

    def __call__(self, pieces: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return self.function(pieces, generator)


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
