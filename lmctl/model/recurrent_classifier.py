"""Bidirectional LSTM and GRU classifiers (Conneau et al. 2017, InferSent), trained from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lmctl.core.batch import Family
from lmctl.core.vocabulary import Vocabulary
from lmctl.model.base import ModelSpec
from lmctl.model.sizes import check_cell, check_sizes

if TYPE_CHECKING:
    from lmctl.model.rnn.networks import RecurrentClassifierNetwork

POOLINGS = ("max", "mean", "last")


@dataclass(frozen=True)
class BiLSTM(ModelSpec):
    """BiLSTM or BiGRU classifier spec: sizes and dropout; the vocabulary comes from the tokenizer. Rows of any
    length."""

    layers: int
    hidden: int
    embedding: int
    cell: str = "lstm"
    pooling: str = "max"
    dropout: float = 0.3

    family: ClassVar[Family] = "encoder"
    max_positions: ClassVar[int | None] = None
    linear_layers: ClassVar[bool] = False
    nearest_mix: ClassVar[str] = "mix=classify"

    def __post_init__(self) -> None:
        check_sizes(self, ("layers", "hidden", "embedding"), ("dropout",))
        check_cell(self.cell)
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {self.pooling!r}")

    @property
    def dropouts(self) -> tuple[float | None, ...]:
        return (self.dropout,)

    def load(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> RecurrentClassifierNetwork:
        """A randomly initialised network; ConfigError for a language model head."""
        from lmctl.model.rnn.classifier import RecurrentClassifierConfig, RecurrentForSequenceClassification
        from lmctl.model.rnn.networks import RecurrentClassifierNetwork, refuse_language

        refuse_language(heads)
        config = RecurrentClassifierConfig(
            vocab_size=vocabulary.size,
            cell=self.cell,
            num_hidden_layers=self.layers,
            embedding_size=self.embedding,
            hidden_size=2 * self.hidden,
            pooling=self.pooling,
            dropout=self.dropout,
            num_labels=next(iter(heads.values())),
            bos_token_id=vocabulary.cls,
            eos_token_id=vocabulary.sep,
            pad_token_id=vocabulary.pad,
        )
        return RecurrentClassifierNetwork(RecurrentForSequenceClassification(config), heads)
