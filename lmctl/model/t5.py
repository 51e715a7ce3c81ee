"""T5 (Raffel et al. 2020; version 1.1: gated GELU as in Shazeer 2020): an encoder with a decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lmctl.core.batch import Family
from lmctl.core.vocabulary import Vocabulary
from lmctl.model.attention import Attending
from lmctl.model.sizes import check_heads, check_sizes, rounded

if TYPE_CHECKING:
    from lmctl.model.network import Seq2Seq


@dataclass(frozen=True)
class T5(Attending):
    """T5 spec: sizes and dropout; the vocabulary comes from the tokenizer. Relative positions: rows of any length."""

    layers: int
    decoder_layers: int
    hidden: int
    heads: int
    feed_forward: int
    dropout: float = 0.1
    gated: bool = True
    tied_embeddings: bool = True
    pad_vocabulary_to: int = 1

    family: ClassVar[Family] = "seq2seq"
    max_positions: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("layers", "decoder_layers", "hidden", "heads", "feed_forward", "pad_vocabulary_to")
        check_sizes(self, counts, ("dropout",))
        check_heads(self.hidden, self.heads)

    @property
    def dropouts(self) -> tuple[float | None, ...]:
        return (self.dropout,)

    def load(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> Seq2Seq:
        """A randomly initialised network; ConfigError for classifiers."""
        from transformers import T5Config, T5ForConditionalGeneration

        from lmctl.model.network import Seq2Seq

        config = T5Config(
            vocab_size=rounded(vocabulary.size, self.pad_vocabulary_to),
            num_layers=self.layers,
            num_decoder_layers=self.decoder_layers,
            d_model=self.hidden,
            num_heads=self.heads,
            d_kv=self.hidden // self.heads,
            d_ff=self.feed_forward,
            dropout_rate=self.dropout,
            feed_forward_proj="gated-gelu" if self.gated else "relu",
            tie_word_embeddings=self.tied_embeddings,
            pad_token_id=vocabulary.pad,
            eos_token_id=vocabulary.sep,
            decoder_start_token_id=vocabulary.pad,
            use_cache=False,
        )
        return Seq2Seq(T5ForConditionalGeneration(config), heads).attending(self.attention)
