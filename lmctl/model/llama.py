"""Llama (Touvron et al. 2023): a Transformer decoder with rotary positions, RMS norms and gated feed-forward layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lmctl.core.batch import Family
from lmctl.core.vocabulary import Vocabulary
from lmctl.model.attention import Attending
from lmctl.model.sizes import check_heads, check_sizes, rounded

if TYPE_CHECKING:
    from lmctl.model.network import Decoder


@dataclass(frozen=True)
class Llama(Attending):
    """Llama spec: sizes; the vocabulary comes from the tokenizer."""

    layers: int
    hidden: int
    heads: int
    key_value_heads: int
    feed_forward: int
    max_positions: int = 2048
    attention_dropout: float = 0.0
    tied_embeddings: bool = True
    pad_vocabulary_to: int = 1

    family: ClassVar[Family] = "decoder"

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("layers", "hidden", "heads", "key_value_heads", "feed_forward", "max_positions", "pad_vocabulary_to")
        check_sizes(self, counts, ("attention_dropout",))
        check_heads(self.hidden, self.heads)
        if self.heads % self.key_value_heads:
            raise ValueError(
                f"heads must be a multiple of key_value_heads, got {self.heads} and {self.key_value_heads}"
            )

    @property
    def dropouts(self) -> tuple[float | None, ...]:
        return (self.attention_dropout,)

    def load(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> Decoder:
        """A randomly initialised network with a language model head, or with a classifier if `heads` has none."""
        from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

        from lmctl.model.network import Decoder

        config = LlamaConfig(
            vocab_size=rounded(vocabulary.size, self.pad_vocabulary_to),
            num_hidden_layers=self.layers,
            hidden_size=self.hidden,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads,
            intermediate_size=self.feed_forward,
            max_position_embeddings=self.max_positions,
            attention_dropout=self.attention_dropout,
            tie_word_embeddings=self.tied_embeddings,
            bos_token_id=vocabulary.sep,
            eos_token_id=vocabulary.sep,
            pad_token_id=vocabulary.pad,
            use_cache=False,
        )
        config._attn_implementation = "sdpa"
        if "lm" in heads:
            return Decoder(LlamaForCausalLM(config), heads).attending(self.attention)
        config.num_labels = next(iter(heads.values()))
        return Decoder(LlamaForSequenceClassification(config), heads).attending(self.attention)
