"""Encoding word by word: the ids that the library gives for whole texts, for every kind of tokenizer."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

from lmctl.core import text_encoder
from lmctl.core.text_encoder import TextEncoder, splits_at_spaces
from lmctl.tokenizer.base import TokenizerSpec
from lmctl.tokenizer.bpe import Bpe
from lmctl.tokenizer.char import Char
from lmctl.tokenizer.unigram import Unigram
from lmctl.tokenizer.word import Word
from lmctl.tokenizer.wordpiece import WordPiece

TEXT = [
    "The café of São Paulo isn't open, said Ωmega's owner.",
    "A naïve reader re-reads 1,234 pages of 'the' book ; the end .",
    "Größe und Maß : ΣΑΣ, ﬁne ½ 中文 文 한국어 日本語",
]
SPECS: dict[str, TokenizerSpec] = {
    "wordpiece": WordPiece(200),
    "wordpiece_cased": WordPiece(200, lowercase=False),
    "bpe": Bpe(400),
    "bpe_lower": Bpe(400, lowercase=True),
    "unigram": Unigram(120),
    "word": Word(100, min_frequency=1),
    "word_spaces": Word(100, min_frequency=1, punctuation=False, lowercase=True),
    "char": Char(100),
}
BY_WORDS = {*SPECS, "gpt2", "whitespace"} - {"char"}
OTHERS = ("gpt2", "whitespace", "words_with_spaces", "over_spaces", "dropout", "cut")


@cache
def tokenizer(name: str) -> Tokenizer:
    if name in SPECS:
        return SPECS[name].obtain(iter(TEXT * 3)).backend_tokenizer
    made: Tokenizer = Tokenizer.from_str(tokenizer("bpe").to_str())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name == "whitespace":
        made.pre_tokenizer, made.normalizer = pre_tokenizers.Whitespace(), normalizers.BertNormalizer()
    elif name == "words_with_spaces":
        made.add_tokens([AddedToken("the end", normalized=False)])
    elif name == "over_spaces":
        split = pre_tokenizers.Split(Regex(r"\d{1,3}| ?\S+ ?"), "isolated")
        made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(use_regex=False)])
    elif name == "dropout":
        made.model.dropout = 0.5
    elif name == "cut":
        made.enable_truncation(3)
    return made


def by_library(name: str, texts: list[str]) -> list[list[int]]:
    whole = Tokenizer.from_str(tokenizer(name).to_str())
    whole.encode_special_tokens = True
    return [encoding.ids for encoding in whole.encode_batch_fast(texts, add_special_tokens=False)]


def encoded(encode: TextEncoder, texts: list[str]) -> list[list[int]]:
    ids, lengths = encode(texts)
    assert ids.dtype == np.uint16
    return [part.tolist() for part in np.split(ids, lengths.cumsum()[:-1])] if len(lengths) else []


WORDS = st.sampled_from([word for line in TEXT for word in line.split()] + ["[SEP]", "[MASK]", "\u2581x", "\n", "\t"])
MARKS = st.text(st.sampled_from(" eaA.'\u0301\u0338\u00a0\u3000\u0130\u1e9b\u00a8\u00b4\u200d1ΣﬁÅ\x7f\r\n"), max_size=8)
TEXTS = st.lists(WORDS | MARKS, max_size=12).map(" ".join) | st.text(max_size=20)


@pytest.mark.parametrize("name", [name for name in (*SPECS, *OTHERS) if name != "dropout"])
@given(st.lists(TEXTS, min_size=1, max_size=5))
@settings(deadline=None, max_examples=30)
def test_ids_are_those_of_the_library(name, texts):
    encode, expected = TextEncoder(tokenizer(name)), by_library(name, texts)
    assert encoded(encode, texts) == expected
    assert encoded(encode, texts[::-1]) == expected[::-1]  # with all words known


def test_it_is_known_which_tokenizers_take_words_apart():
    cut = {name for name in (*SPECS, *OTHERS) if splits_at_spaces(json.loads(tokenizer(name).to_str()))}
    assert cut == BY_WORDS


def test_a_full_table_is_emptied(monkeypatch):
    monkeypatch.setattr(text_encoder, "MOST_WORDS", 12)
    monkeypatch.setattr(text_encoder, "LONGEST_WORD", 5)
    encode = TextEncoder(tokenizer("wordpiece"))
    for line in TEXT * 2:
        assert encoded(encode, [line] * 3) == by_library("wordpiece", [line] * 3)


def test_texts_that_repeat_nothing_are_encoded_whole(monkeypatch):
    monkeypatch.setattr(text_encoder, "MOST_NEW", 3)
    encode, texts = TextEncoder(tokenizer("wordpiece")), ["a b c d e f g", "h i j", "a b a b"]
    for text in texts:
        assert encoded(encode, [text]) == by_library("wordpiece", [text])
    assert not encode._by_words
    assert encoded(encode, []) == []
