"""`tokenizer=wordpiece`: BERT's tokenizer (Schuster and Nakajima 2012; Devlin et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lmctl.tokenizer.base import TokenizerSpec
from lmctl.tokenizer.training import (
    SPECIAL,
    UNK,
    alphabet,
    bert,
    check_sizes,
    enough,
    enough_different,
    finish,
    identity_of,
    lost_accents,
    reread,
    train,
    with_words_up_to,
    words,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_ALPHABET_SHARE = 0.45
"""Share of the vocabulary for single characters; these may be needed twice, at the start of a word and inside."""

_LONGEST_WORD = 100
"""Longest word in characters; a longer one is [UNK] as a whole, so it is not used in training."""


@dataclass(frozen=True)
class WordPiece(TokenizerSpec):
    """Splits words at white space, punctuation and Chinese characters, then into subwords; `##` marks a
    continuation."""

    vocab_size: int = 8192
    lowercase: bool = True
    min_frequency: int = 2

    def __post_init__(self) -> None:
        check_sizes(self.vocab_size, self.min_frequency)

    def identity(self) -> Mapping[str, Any]:
        return identity_of(self)

    def obtain(self, sentences: Iterator[str]) -> PreTrainedTokenizerFast:
        """Train on `sentences`; a small text gives fewer tokens than `vocab_size`."""
        tokenizer = Tokenizer(models.WordPiece({}, unk_token=UNK))
        tokenizer.normalizer = bert(self.lowercase)
        tokenizer.pre_tokenizer = with_words_up_to(pre_tokenizers.BertPreTokenizer(), _LONGEST_WORD, "removed")
        with reread(sentences, enough(self.vocab_size)) as text:
            found = words(tokenizer, text, enough_different(self.vocab_size))
            inside = {character for word in found for character in word[1:]}
            # Chinese characters never continue a word, so they need one token each; letters need two.
            room = self.vocab_size - len(SPECIAL)
            letters = alphabet((word for word in found if len(word) > 1), int(room * _ALPHABET_SHARE))
            continued = [character for character in letters if character in inside]
            rare = inside.difference(letters)  # if one of these is a word, the trainer adds its continuation
            alone = (word for word in found if len(word) == 1 and word not in rare)
            singles = alphabet(alone, room - len(letters) - len(continued) - 1)
            characters = sorted({*letters, *singles})
            # The trainer would number continuations in hash map order; as "special" tokens they keep this order.
            trainer = trainers.WordPieceTrainer(
                vocab_size=self.vocab_size,
                min_frequency=self.min_frequency,
                special_tokens=[*SPECIAL, *("##" + character for character in continued)],
                initial_alphabet=characters,
                limit_alphabet=len(characters),
                show_progress=False,
            )
            train(tokenizer, text, trainer)
            notes = lost_accents(text) if self.lowercase else []
        vocabulary = tokenizer.get_vocab(with_added_tokens=False)
        trained = Tokenizer(models.WordPiece(vocabulary, unk_token=UNK, max_input_chars_per_word=_LONGEST_WORD))
        trained.normalizer, trained.pre_tokenizer = tokenizer.normalizer, pre_tokenizers.BertPreTokenizer()
        trained.decoder = decoders.WordPiece(cleanup=True)
        return finish(trained, text, notes)
