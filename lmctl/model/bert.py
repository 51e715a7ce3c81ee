"""BERT (Devlin et al. 2019): a bidirectional Transformer encoder, trained from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lmctl.core.types import Family
from lmctl.core.vocabulary import Vocabulary

if TYPE_CHECKING:
    from lmctl.model.bert_network import BertNetwork


@dataclass(frozen=True)
class Bert:
    """Size and regularisation; the vocabulary comes from the tokenizer."""

    family: ClassVar[Family] = "encoder"

    layers: int
    hidden: int
    heads: int
    feed_forward: int
    max_positions: int = 512
    dropout: float = 0.1
    attention_dropout: float = 0.1
    pad_vocabulary_to: int = 1

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "heads", "feed_forward", "max_positions", "pad_vocabulary_to"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.hidden % self.heads:
            raise ValueError(f"hidden must be a multiple of heads, got {self.hidden} and {self.heads}")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a probability below 1, got {getattr(self, name)}")

    def load(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> BertNetwork:
        """A freshly initialised network with the heads "mlm" and, if wanted, "pair"."""
        from transformers import BertConfig, BertForMaskedLM, BertForPreTraining

        from lmctl.model.bert_network import BertNetwork

        rows = -(-vocabulary.size // self.pad_vocabulary_to) * self.pad_vocabulary_to
        config = BertConfig(
            vocab_size=rows,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.feed_forward,
            max_position_embeddings=self.max_positions,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.attention_dropout,
            pad_token_id=vocabulary.pad,
        )
        config._attn_implementation = "sdpa"
        return BertNetwork((BertForPreTraining if "pair" in heads else BertForMaskedLM)(config))
