"""`tokenizer=char`: character-level tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from lmctl.tokenizer.base import TokenizerSpec
from lmctl.tokenizer.training import SPECIAL, UNK, case, check_sizes, enough, finish, identity_of, reread, train

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Char(TokenizerSpec):
    """The most frequent characters, spaces included; all others are [UNK]."""

    vocab_size: int = 8192
    lowercase: bool = False
    min_frequency: int = 1

    def __post_init__(self) -> None:
        check_sizes(self.vocab_size, self.min_frequency)

    def identity(self) -> Mapping[str, Any]:
        return identity_of(self)

    def obtain(self, sentences: Iterator[str]) -> PreTrainedTokenizerFast:
        """Count the characters of `sentences`; most texts have fewer than `vocab_size`."""
        tokenizer = Tokenizer(models.WordLevel({}, unk_token=UNK))
        tokenizer.normalizer = case(self.lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
        # Deterministic: tokens are numbered by frequency, and alphabetically within it.
        trainer = trainers.WordLevelTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=list(SPECIAL),
            show_progress=False,
        )
        with reread(sentences, enough(self.vocab_size)) as text:
            train(tokenizer, text, trainer)
        return finish(tokenizer, text)
