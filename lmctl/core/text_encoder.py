"""Token ids of texts with each word encoded once.

A tokenizer's normaliser takes most of the time, and a corpus repeats its words. Where a tokenizer provably treats what
stands on both sides of a space apart (`splits_at_spaces`), texts are cut there, and ids of words are looked up. What is
not in the table yet, and texts of other tokenizers, are encoded by the library, on all cores.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_WORDS = 1 << 18
"""Words in the table, which is emptied when it is full: some 50 MB."""

MOST_NEW = 1 << 16
"""New words above half of all words after which texts are no longer cut: they repeat nothing, as in Chinese."""

LONGEST_WORD = 64
"""Longest word in characters that is kept: longer ones hardly come again."""

_FIRST = "\n"
"""Marks the first word of a text in the table: no word begins with a line break."""

_APART = re.compile(r"(?<=[!-~]) (?=[!-~])")
"""A single space between two visible ASCII characters, which no normaliser joins with what is around them."""

_LOCAL = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents"}
"""Normalisers that change a character by itself, or together with combining ones next to it."""

_BEYOND_ASCII = re.compile(r"\[(\\u[0-9a-f]{4}-?)+\]")
"""A class of characters that are written as escapes."""

_SPLITTING = {"BertPreTokenizer", "ByteLevel", "Metaspace", "Whitespace", "WhitespaceSplit"}
"""Pre-tokenisers that begin a new word at every single space, whatever is around it."""

_WITHIN_WORDS = {"Digits", "Punctuation"}
"""Pre-tokenisers that only cut words into parts."""


class TextEncoder:
    """Encodes texts as a tokenizer does, without special tokens: the characters "[SEP]" in a text are characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        spec = tokenizer.to_str()
        self._tokenizer = type(tokenizer).from_str(spec)
        self._tokenizer.encode_special_tokens = True
        self._by_words = splits_at_spaces(json.loads(spec))
        self._known: dict[str, bytes] = {}
        """Ids of words, as bytes of `dtype`."""
        self._asked = self._new = 0
        """Words that were looked up, and those that were not known."""
        self.vocabulary = tokenizer.get_vocab_size()
        self.dtype = np.dtype(np.uint16 if self.vocabulary <= 1 << 16 else np.uint32)

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all texts end to end, uint16 or uint32 [n], and the number of each text's, int64 [texts]."""
        if not self._by_words or not texts:
            ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
            lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
            return np.fromiter(chain.from_iterable(ids), dtype=self.dtype, count=int(lengths.sum())), lengths
        words = [_words(text) for text in texts]
        pieces = self._looked_up(list(chain.from_iterable(words)))
        behind = np.fromiter(map(len, pieces), dtype=np.int64, count=len(pieces)).cumsum() // self.dtype.itemsize
        last = np.fromiter(map(len, words), dtype=np.int64, count=len(words)).cumsum() - 1
        return np.frombuffer(b"".join(pieces), dtype=self.dtype), np.diff(behind[last], prepend=0)

    def _looked_up(self, words: Sequence[str]) -> Sequence[bytes]:
        """The ids of each word."""
        found = list(map(self._known.get, words))
        new = dict.fromkeys(word for word, ids in zip(words, found, strict=True) if ids is None)
        self._asked, self._new = self._asked + len(words), self._new + len(new)
        self._by_words = self._new <= MOST_NEW + self._asked // 2
        encoded = dict(zip(new, self._encoded(list(new)), strict=True))
        if len(self._known) + len(new) > MOST_WORDS:
            self._known.clear()
        self._known.update((word, ids) for word, ids in encoded.items() if len(word) <= LONGEST_WORD)
        return [encoded[word] if ids is None else ids for word, ids in zip(words, found, strict=True)]

    def _encoded(self, words: Sequence[str]) -> Iterator[bytes]:
        # All words but a text's first one are encoded with the space before them, which some tokenizers note.
        texts = [word[1:] if word.startswith(_FIRST) else f" {word}" for word in words]
        for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            yield np.array(encoding.ids, dtype=self.dtype).tobytes()


def _words(text: str) -> list[str]:
    """`text` cut at the spaces that stand apart; its first part is marked."""
    if text.isascii() and text.isprintable() and "  " not in text and text[:1] != " " and text[-1:] != " ":
        words = text.split(" ")  # the same, faster
    else:
        words = _APART.split(text)
    words[0] = _FIRST + words[0]
    return words


def splits_at_spaces(spec: Mapping[str, Any]) -> bool:
    """Whether the tokenizer with this JSON gives, for a text cut before spaces between visible ASCII characters, the
    ids of the parts one after the other. False where that is not known."""
    normal = _steps(spec["normalizer"], "normalizers")
    first, *others = _steps(spec["pre_tokenizer"], "pretokenizers") or [{"type": None}]
    return (
        spec["truncation"] is None
        and spec["padding"] is None
        and not spec["model"].get("dropout")
        and all(token["special"] for token in spec["added_tokens"])
        and all(step["type"] in _LOCAL or _removes_only_marks(step) for step in normal)
        and first["type"] in _SPLITTING
        and first.get("use_regex", True)
        and first.get("split", True)
        and all(step["type"] in _WITHIN_WORDS for step in others)
    )


def _steps(step: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    """A normaliser or pre-tokeniser as the steps of a sequence."""
    if step is None:
        return []
    return [one for part in step[name] for one in _steps(part, name)] if step["type"] == "Sequence" else [step]


def _removes_only_marks(step: Mapping[str, Any]) -> bool:
    """Whether a normaliser replaces single characters beyond ASCII and nothing else."""
    pattern = step.get("pattern", {}).get("Regex", "") if step["type"] == "Replace" else ""
    codes = [int(code, 16) for code in re.findall(r"\\u([0-9a-f]{4})", pattern)]
    return _BEYOND_ASCII.fullmatch(pattern) is not None and min(codes) > 0x7F
