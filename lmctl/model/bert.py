"""BERT (Devlin et al. 2019): a bidirectional Transformer encoder, trained from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lmctl.core.batch import Family
from lmctl.core.vocabulary import Vocabulary
from lmctl.model.attention import Attending
from lmctl.model.sizes import check_heads, check_sizes, rounded

if TYPE_CHECKING:
    from lmctl.model.bert_network import BertNetwork


@dataclass(frozen=True)
class Bert(Attending):
    """BERT spec: sizes and dropout; the vocabulary comes from the tokenizer."""

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
        super().__post_init__()
        counts = ("layers", "hidden", "heads", "feed_forward", "max_positions", "pad_vocabulary_to")
        check_sizes(self, counts, ("dropout", "attention_dropout"))
        check_heads(self.hidden, self.heads)

    @property
    def dropouts(self) -> tuple[float | None, ...]:
        return (self.dropout, self.attention_dropout)

    def load(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> BertNetwork:
        """A randomly initialised network with `heads`."""
        from transformers import BertConfig

        from lmctl.model.bert_network import BertNetwork

        config = BertConfig(
            vocab_size=rounded(vocabulary.size, self.pad_vocabulary_to),
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
        kind = bert_class(heads)
        if "mlm" not in heads:
            config.num_labels = next(iter(heads.values()))
        return BertNetwork(kind(config), heads).attending(self.attention)


def bert_class(heads: Mapping[str, int]) -> Any:
    """The transformers class for `heads`: without a pooler if no head classifies whole rows."""
    from transformers import BertForMaskedLM, BertForPreTraining, BertForSequenceClassification

    if "mlm" not in heads and "pair" not in heads:
        return BertForSequenceClassification
    return BertForMaskedLM if set(heads) == {"mlm"} else BertForPreTraining
