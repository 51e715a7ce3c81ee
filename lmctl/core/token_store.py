"""Tokens on disk, memory-mapped: what training reads instead of tokenising text at every step.

A store is four flat arrays, in a directory (or in memory, for a block of a stream). Sentence s is
`tokens[sentences[s]:sentences[s + 1]]`, document d is sentences `documents[d]` to `documents[d + 1]`. No special
tokens are stored; objectives add their own.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmctl.core.batch import Document
from lmctl.core.text_parts import parts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMAT = 2
"""Part of every cache key: raise it when the layout or the meaning of a store changes."""

_LONGEST = 100_000
"""Characters of a sentence that are tokenised together; of a longer one each part is."""

_SENTENCES_AT_ONCE, _CHARACTERS_AT_ONCE = 20_000, 1 << 20
"""A block takes some hundred bytes per character while it is tokenised, and signals wait for its end."""


@dataclass(frozen=True)
class TokenStore:
    """One split of one corpus, tokenised."""

    tokens: np.ndarray
    """uint16 or uint32 [T], memory-mapped."""
    sentences: np.ndarray
    """int64 [S + 1]: where each sentence begins in `tokens`; the last entry is T."""
    documents: np.ndarray
    """int64 [D + 1]: where each document begins in the sentences; the last entry is S."""
    histogram: np.ndarray
    """int64 [V]: how often each piece occurs."""
    characters: int
    """Characters of the text, for bits per character and compression figures."""
    labels: np.ndarray | None = None
    """One per document: int64 [D] places in `label_names`, float32 [D, C] zeros and ones, or float32 [D] numbers."""
    label_names: tuple[str, ...] = ()

    @classmethod
    def open(cls, folder: Path) -> TokenStore:
        meta = json.loads((folder / "meta.json").read_text())
        tokens = np.empty(0, dtype=meta["dtype"])
        if meta["tokens"]:  # an empty file cannot be mapped
            tokens = np.memmap(folder / "tokens.bin", dtype=meta["dtype"], mode="r", shape=(meta["tokens"],))
        sentences, documents, histogram = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("sentences", "documents", "histogram")
        )
        labels = np.load(folder / "labels.npy", mmap_mode="r") if "label_names" in meta else None
        names = tuple(meta.get("label_names", ()))
        return cls(tokens, sentences, documents, histogram, meta["characters"], labels, names)

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def document_starts(self) -> np.ndarray:
        """int64 [D + 1]: where each document begins in `tokens`."""
        return np.asarray(self.sentences)[np.asarray(self.documents)]


def write_store(folder: Path, documents: Iterable[Document], tokenizer: Tokenizer) -> None:
    """Tokenise `documents` into an empty `folder`, a block of sentences at a time; documents stream through."""
    with open(folder / "tokens.bin", "wb") as out:
        store = _tokenise(documents, tokenizer, lambda flat: flat.tofile(out))
    for name in ("sentences", "documents", "histogram"):
        np.save(folder / f"{name}.npy", getattr(store, name))
    tokens, characters = int(store.sentences[-1]), store.characters
    meta = {"format": FORMAT, "dtype": store.tokens.dtype.name, "tokens": tokens, "characters": characters}
    (folder / "meta.json").write_text(json.dumps(meta))


def store_in_memory(documents: Iterable[Document], tokenizer: Tokenizer) -> TokenStore:
    """The same store without a folder, for as many documents as memory holds."""
    parts: list[np.ndarray] = []
    store = _tokenise(documents, tokenizer, parts.append)
    return replace(store, tokens=np.concatenate([store.tokens, *parts]))


def _tokenise(documents: Iterable[Document], tokenizer: Tokenizer, take: Callable[[np.ndarray], object]) -> TokenStore:
    """A store of `documents` without its tokens: they go to `take`, uint16 or uint32 [n] at a time."""
    # In a copy: text that spells "[SEP]" is text, and must not become the special piece.
    tokenizer = type(tokenizer).from_str(tokenizer.to_str())
    tokenizer.encode_special_tokens = True
    vocabulary = tokenizer.get_vocab_size()
    dtype = np.dtype(np.uint16 if vocabulary <= 1 << 16 else np.uint32)
    lengths: list[np.ndarray] = []
    last = bytearray()
    """Of each part, whether it is the last one of its sentence."""
    per_document = array("q")
    histogram = np.zeros(vocabulary, dtype=np.int64)
    characters = 0

    def texts() -> Iterator[str]:
        for document in documents:
            per_document.append(len(document))
            for sentence in document:
                for part in parts(sentence, _LONGEST):
                    last.append(False)
                    yield part
                last[-1] = True

    stream = texts()
    while block := _block(stream):
        characters += sum(map(len, block))
        encodings = tokenizer.encode_batch_fast(block, add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        lengths.append(np.fromiter(map(len, ids), dtype=np.int64, count=len(ids)))
        flat = np.fromiter((i for part in ids for i in part), dtype=dtype, count=int(lengths[-1].sum()))
        histogram += np.bincount(flat, minlength=vocabulary)
        take(flat)
    behind = np.concatenate([np.empty(0, np.int64), *lengths]).cumsum()[np.frombuffer(last, dtype=bool)]
    starts = np.concatenate([[0], behind])
    ends = np.concatenate([[0], np.array(per_document, dtype=np.int64)]).cumsum()
    return TokenStore(np.empty(0, dtype), starts, ends, histogram, characters)


def _block(stream: Iterator[str]) -> list[str]:
    """The next texts, few if they are long; none at the end."""
    block, characters = [], 0
    for text in stream:
        block.append(text)
        characters += len(text)
        if len(block) == _SENTENCES_AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
            break
    return block


def add_labels(folder: Path, labels: np.ndarray, names: Sequence[str]) -> None:
    """Give the store in `folder` a label per document; `names` are those of the classes, none for numbers."""
    np.save(folder / "labels.npy", labels)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"label_names": list(names)}))
