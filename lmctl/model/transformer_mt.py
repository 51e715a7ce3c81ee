"""The Transformer for translation (Vaswani et al. 2017): sinusoidal positions, one vocabulary, all embeddings tied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lmctl.core.batch import Family
from lmctl.core.vocabulary import Vocabulary
from lmctl.model.attention import Attending
from lmctl.model.sizes import check_heads, check_sizes

if TYPE_CHECKING:
    from lmctl.model.network import Seq2Seq


@dataclass(frozen=True)
class TransformerMT(Attending):
    """Transformer translation spec: sizes and dropout; the vocabulary of both languages comes from the tokenizer."""

    layers: int
    decoder_layers: int
    hidden: int
    heads: int
    feed_forward: int
    max_positions: int = 512
    dropout: float = 0.1
    attention_dropout: float = 0.0

    family: ClassVar[Family] = "seq2seq"

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("layers", "decoder_layers", "hidden", "heads", "feed_forward", "max_positions")
        check_sizes(self, counts, ("dropout", "attention_dropout"))
        check_heads(self.hidden, self.heads)

    @property
    def dropouts(self) -> tuple[float | None, ...]:
        return (self.dropout, self.attention_dropout)

    def load(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> Seq2Seq:
        """A randomly initialised network; ConfigError for classifiers."""
        from transformers import MarianConfig, MarianMTModel

        from lmctl.model.network import Seq2Seq

        config = MarianConfig(
            vocab_size=vocabulary.size,
            decoder_vocab_size=vocabulary.size,
            encoder_layers=self.layers,
            decoder_layers=self.decoder_layers,
            d_model=self.hidden,
            encoder_attention_heads=self.heads,
            decoder_attention_heads=self.heads,
            encoder_ffn_dim=self.feed_forward,
            decoder_ffn_dim=self.feed_forward,
            max_position_embeddings=self.max_positions,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            activation_function="relu",
            scale_embedding=True,
            init_std=self.hidden**-0.5,  # scaled embeddings then have variance 1
            share_encoder_decoder_embeddings=True,
            tie_word_embeddings=True,
            pad_token_id=vocabulary.pad,
            eos_token_id=vocabulary.sep,
            bos_token_id=vocabulary.cls,
            decoder_start_token_id=vocabulary.pad,
            forced_eos_token_id=None,
            use_cache=False,
        )
        config._attn_implementation = "sdpa"
        return Seq2Seq(MarianMTModel(config), heads).attending(self.attention)
