"""`tokenizer=word`: word-level tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from lmctl.tokenizer.base import TokenizerSpec
from lmctl.tokenizer.training import (
    SPECIAL,
    UNK,
    bert,
    case,
    check_sizes,
    enough,
    enough_different,
    finish,
    fit,
    identity_of,
    reread,
    train,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Word(TokenizerSpec):
    """The most frequent words; all others are [UNK]."""

    vocab_size: int = 32768
    lowercase: bool = False
    min_frequency: int = 2
    punctuation: bool = True
    """Whether punctuation marks and Chinese characters are words of their own; otherwise only white space separates
    words."""

    def __post_init__(self) -> None:
        check_sizes(self.vocab_size, self.min_frequency)

    def identity(self) -> Mapping[str, Any]:
        return identity_of(self)

    def obtain(self, sentences: Iterator[str]) -> PreTrainedTokenizerFast:
        """Count the words of `sentences`; a small text has fewer than `vocab_size`."""
        tokenizer = Tokenizer(models.WordLevel({}, unk_token=UNK))
        if self.punctuation:
            plain = bert(lowercase=False)  # words keep their accents
            tokenizer.normalizer = normalizers.Sequence([plain, *[normalizers.Lowercase()] * self.lowercase])
            tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
            tokenizer.decoder = decoders.WordPiece(cleanup=True)
        else:
            tokenizer.normalizer = case(self.lowercase)
            tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        # Deterministic: tokens are numbered by frequency, and alphabetically within it.
        trainer = trainers.WordLevelTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=list(SPECIAL),
            show_progress=False,
        )
        with reread(sentences, enough(self.vocab_size)) as text:
            fit(tokenizer, text, enough_different(self.vocab_size))
            train(tokenizer, text, trainer)
        return finish(tokenizer, text)
