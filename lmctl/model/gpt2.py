"""GPT-2 (Radford et al. 2019): a Transformer decoder with learned positions, trained from scratch."""

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
class Gpt2(Attending):
    """GPT-2 spec: sizes and dropout; the vocabulary comes from the tokenizer."""

    layers: int
    hidden: int
    heads: int
    max_positions: int = 1024
    dropout: float = 0.1
    attention_dropout: float = 0.1
    pad_vocabulary_to: int = 1

    family: ClassVar[Family] = "decoder"

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("layers", "hidden", "heads", "max_positions", "pad_vocabulary_to")
        check_sizes(self, counts, ("dropout", "attention_dropout"))
        check_heads(self.hidden, self.heads)

    @property
    def dropouts(self) -> tuple[float | None, ...]:
        return (self.dropout, self.attention_dropout)

    def load(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> Decoder:
        """A randomly initialised network with a language model head, or with a classifier if `heads` has none."""
        from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

        from lmctl.model.network import Decoder

        config = GPT2Config(
            vocab_size=rounded(vocabulary.size, self.pad_vocabulary_to),
            n_layer=self.layers,
            n_embd=self.hidden,
            n_head=self.heads,
            n_positions=self.max_positions,
            resid_pdrop=self.dropout,
            embd_pdrop=self.dropout,
            attn_pdrop=self.attention_dropout,
            bos_token_id=vocabulary.sep,
            eos_token_id=vocabulary.sep,
            pad_token_id=vocabulary.pad,
            use_cache=False,
        )
        config._attn_implementation = "sdpa"
        if "lm" in heads:
            return Decoder(GPT2LMHeadModel(config), heads).attending(self.attention)
        config.num_labels = next(iter(heads.values()))
        return Decoder(GPT2ForSequenceClassification(config), heads).attending(self.attention)
