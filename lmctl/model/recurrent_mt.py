"""Recurrent encoder-decoders with attention (Bahdanau et al. 2015; Luong et al. 2015), trained from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lmctl.core.batch import Family
from lmctl.core.vocabulary import Vocabulary
from lmctl.model.base import ModelSpec
from lmctl.model.sizes import check_cell, check_sizes

if TYPE_CHECKING:
    from lmctl.model.rnn.networks import RecurrentSeq2Seq

ATTENTIONS = ("bahdanau", "luong")


@dataclass(frozen=True)
class RecurrentMT(ModelSpec):
    """Recurrent encoder-decoder spec: sizes and dropout; the vocabulary of both sides comes from the tokenizer. Rows of
    any length."""

    layers: int
    decoder_layers: int
    hidden: int
    embedding: int
    cell: str = "lstm"
    attention: str = "bahdanau"
    dropout: float = 0.3
    tied_embeddings: bool = True

    family: ClassVar[Family] = "seq2seq"
    max_positions: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        check_sizes(self, ("layers", "decoder_layers", "hidden", "embedding"), ("dropout",))
        check_cell(self.cell)
        if self.attention not in ATTENTIONS:
            raise ValueError(f"attention must be bahdanau or luong, got {self.attention!r}")

    @property
    def dropouts(self) -> tuple[float | None, ...]:
        return (self.dropout,)

    def load(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> RecurrentSeq2Seq:
        """A randomly initialised network; ConfigError for classifiers."""
        from lmctl.model.rnn.networks import RecurrentSeq2Seq
        from lmctl.model.rnn.seq2seq import RecurrentForConditionalGeneration, RecurrentSeq2SeqConfig

        config = RecurrentSeq2SeqConfig(
            vocab_size=vocabulary.size,
            cell=self.cell,
            encoder_layers=self.layers,
            decoder_layers=self.decoder_layers,
            embedding_size=self.embedding,
            hidden_size=self.hidden,
            attention=self.attention,
            dropout=self.dropout,
            tie_word_embeddings=self.tied_embeddings,
            pad_token_id=vocabulary.pad,
            bos_token_id=vocabulary.cls,
            eos_token_id=vocabulary.sep,
            decoder_start_token_id=vocabulary.pad,
        )
        return RecurrentSeq2Seq(RecurrentForConditionalGeneration(config), heads)
