"""Recurrent language models (Zaremba et al. 2014; AWD-LSTM: Merity et al. 2018), trained from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lmctl.core.batch import Family
from lmctl.core.errors import ConfigError
from lmctl.core.vocabulary import Vocabulary
from lmctl.model.base import ModelSpec
from lmctl.model.sizes import check_cell, check_sizes

if TYPE_CHECKING:
    from lmctl.model.rnn.networks import RecurrentNetwork


@dataclass(frozen=True)
class RecurrentLM(ModelSpec):
    """LSTM or GRU language model spec: sizes and dropout; the vocabulary comes from the tokenizer. Rows of any
    length."""

    layers: int
    hidden: int
    cell: str = "lstm"
    dropout: float = 0.2
    embedding_dropout: float = 0.0
    weight_drop: float = 0.0
    locked_dropout: bool = False
    tied_embeddings: bool = True

    family: ClassVar[Family] = "decoder"
    max_positions: ClassVar[int | None] = None
    carries_state: ClassVar[bool] = True
    linear_layers: ClassVar[bool] = False
    """Whether it has linear layers besides heads, which some precisions need."""

    def __post_init__(self) -> None:
        check_sizes(self, ("layers", "hidden"), ("dropout", "embedding_dropout", "weight_drop"))
        check_cell(self.cell)

    @property
    def dropouts(self) -> tuple[float | None, ...]:
        return (self.dropout, self.embedding_dropout, self.weight_drop)

    def load(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> RecurrentNetwork:
        """A randomly initialised network; ConfigError without a language model head."""
        from lmctl.model.rnn.language_model import RecurrentLMConfig, RecurrentLMForCausalLM
        from lmctl.model.rnn.networks import RecurrentNetwork

        if "lm" not in heads:
            raise ConfigError(
                "a recurrent language model classifies only beside predicting text",
                "nearest: model=gpt2_tiny or bert_tiny, or a mix with a clm task",
            )
        config = RecurrentLMConfig(
            vocab_size=vocabulary.size,
            cell=self.cell,
            num_hidden_layers=self.layers,
            hidden_size=self.hidden,
            dropout=self.dropout,
            embedding_dropout=self.embedding_dropout,
            weight_drop=self.weight_drop,
            locked_dropout=self.locked_dropout,
            tie_word_embeddings=self.tied_embeddings,
            bos_token_id=vocabulary.sep,
            eos_token_id=vocabulary.sep,
            pad_token_id=vocabulary.pad,
        )
        return RecurrentNetwork(RecurrentLMForCausalLM(config), heads)
