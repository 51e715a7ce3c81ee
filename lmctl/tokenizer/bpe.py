"""`tokenizer=bpe`: byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lmctl.tokenizer.base import TokenizerSpec
from lmctl.tokenizer.training import (
    LONGEST_WORD,
    SPECIAL,
    case,
    check_sizes,
    enough,
    enough_different,
    finish,
    fit,
    identity_of,
    reread,
    train,
    with_words_up_to,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Bpe(TokenizerSpec):
    """Merges over bytes: no text is unknown to it. `Ġ`, a space, marks the start of a word."""

    vocab_size: int = 8192
    lowercase: bool = False
    min_frequency: int = 2

    def __post_init__(self) -> None:
        check_sizes(self.vocab_size, self.min_frequency, smallest=256 + len(SPECIAL))

    def identity(self) -> Mapping[str, Any]:
        return identity_of(self)

    def obtain(self, sentences: Iterator[str]) -> PreTrainedTokenizerFast:
        """Train on `sentences`; a small text gives fewer tokens than `vocab_size`."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = case(self.lowercase)
        # With a prefix space the first word of a sentence is the same token as elsewhere.
        separate = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.pre_tokenizer = with_words_up_to(separate, LONGEST_WORD, "isolated")
        tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
        # Deterministic: bytes are numbered in sorted order, and ties between merges are resolved by these numbers.
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        with reread(sentences, enough(self.vocab_size)) as text:
            fit(tokenizer, text, enough_different(self.vocab_size))
            train(tokenizer, text, trainer)
        tokenizer.pre_tokenizer = separate
        return finish(tokenizer, text)
