"""`tokenizer=unigram`: subword tokenizer by a unigram language model (Kudo 2018), as in SentencePiece."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from lmctl.tokenizer.base import TokenizerSpec
from lmctl.tokenizer.training import (
    LONGEST_WORD,
    SPECIAL,
    UNK,
    alphabet,
    case,
    check_sizes,
    enough,
    enough_different,
    finish,
    identity_of,
    reread,
    train,
    with_words_up_to,
    words,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_ALPHABET_SHARE = 0.8
_DECIMALS = 3
_SLOWER = 3
"""Training is slower by this factor than of the other tokenizers, for the same words."""


@dataclass(frozen=True)
class Unigram(TokenizerSpec):
    """Segments text with the highest product of token probabilities; `▁`, a space, marks the start of a word."""

    vocab_size: int = 8192
    lowercase: bool = False

    def __post_init__(self) -> None:
        check_sizes(self.vocab_size, min_frequency=1)

    def identity(self) -> Mapping[str, Any]:
        return identity_of(self)

    def obtain(self, sentences: Iterator[str]) -> PreTrainedTokenizerFast:
        """Train on `sentences`; a small text gives fewer tokens than `vocab_size`."""
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = case(self.lowercase)
        # Without the second step "world." would be a token besides "world".
        separate = pre_tokenizers.Sequence(
            [pre_tokenizers.Metaspace(prepend_scheme="always"), pre_tokenizers.Punctuation("isolated")]
        )
        tokenizer.pre_tokenizer = with_words_up_to(separate, LONGEST_WORD, "isolated")
        normalizer = tokenizer.normalizer
        with reread(sentences, enough(self.vocab_size)) as text:
            found = words(tokenizer, text, enough_different(self.vocab_size) // _SLOWER)
            every = {character for word in found for character in word}
            kept = alphabet(found, int((self.vocab_size - len(SPECIAL)) * _ALPHABET_SHARE))
            # The trainer raises for more characters than tokens; rare characters become [UNK] instead.
            if rare := every.difference(kept):
                tokenizer.normalizer = normalizers.Sequence([normalizer, normalizers.Replace(_any_of(rare), " ")])
            scores = _train(tokenizer, text, self.vocab_size)
        trained = Tokenizer(models.Unigram(_in_order(scores), unk_id=SPECIAL.index(UNK)))
        trained.normalizer, trained.pre_tokenizer = normalizer, separate
        trained.decoder = decoders.Metaspace(prepend_scheme="always")
        return finish(trained, text)


def _any_of(characters: Iterable[str]) -> Regex:
    """A regex that matches these characters in normalised text."""
    return Regex("[" + "".join(f"\\x{{{ord(character):x}}}" for character in sorted(characters)) + "]")


def _train(tokenizer: Tokenizer, text: Iterable[str], vocab_size: int) -> dict[str, float]:
    """Tokens with their log-probabilities."""
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL), unk_token=UNK, show_progress=False
    )
    train(tokenizer, text, trainer)
    return dict(json.loads(tokenizer.to_str())["model"]["vocab"])


def _in_order(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    """Special tokens, then tokens by descending score, rounded.

    The trainer sums expected counts in the order of a hash map, so the last digits of the scores differ between runs:
    they are rounded, and tokens of equal score are in alphabetical order. One difference remains: the trainer drops
    tokens with an expected count below 0.5 between its rounds, and where the count is exactly 0.5 (long text without
    spaces, so mostly Chinese) some scores of a second training can differ. The cache keeps the first.
    """
    rounded = {piece: round(score, _DECIMALS) for piece, score in scores.items() if piece not in SPECIAL}
    ordered = sorted(rounded.items(), key=lambda item: (-item[1], item[0]))
    return [*((piece, 0.0) for piece in SPECIAL), *ordered]
