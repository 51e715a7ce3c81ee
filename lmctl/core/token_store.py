"""Token stores: a tokenised corpus as memory-mapped arrays, so that training does not tokenise text at every step.

A store is four flat arrays, in a directory (or in memory, for a block of a stream). Sentence s is
`tokens[sentences[s]:sentences[s + 1]]`, document d is sentences `documents[d]` to `documents[d + 1]`. No special tokens
are stored; objectives add their own.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmctl.core.batch import Document
from lmctl.core.cache_check import Damaged
from lmctl.core.mapped_arrays import mapping_in, npy_array, offsets, raw_array, save_npy
from lmctl.core.text_encoder import TextEncoder
from lmctl.core.text_parts import parts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMAT = 2
"""Version of the store's layout, part of every cache key: increase it when the layout or its meaning changes."""

_LONGEST = 100_000
"""Longest text in characters that is tokenised at once; a longer sentence is split."""

_SENTENCES_AT_ONCE, _CHARACTERS_AT_ONCE = 20_000, 1 << 20
"""Limits of a block: tokenising takes some hundred bytes per character, and signals are handled between blocks."""


@dataclass(frozen=True)
class TokenStore:
    """One tokenised split of a corpus."""

    tokens: np.ndarray
    """uint16 or uint32 [T], memory-mapped."""
    sentences: np.ndarray
    """int64 [S + 1]: where each sentence begins in `tokens`; the last entry is T."""
    documents: np.ndarray
    """int64 [D + 1]: where each document begins in the sentences; the last entry is S."""
    histogram: np.ndarray
    """int64 [V]: count of each token."""
    characters: int
    """Number of characters, for bits per character and the compression ratio."""
    labels: np.ndarray | None = None
    """One per document: int64 [D] indices into `label_names`, float32 [D, C] zeros and ones, or float32 [D] numbers."""
    label_names: tuple[str, ...] = ()

    @classmethod
    def open(cls, folder: Path) -> TokenStore:
        """The store in `folder`; Damaged if its files do not fit together."""
        meta = mapping_in(folder / "meta.json")
        dtype, count, characters = meta.get("dtype"), meta.get("tokens"), meta.get("characters")
        names = meta.get("label_names")
        if dtype not in ("uint16", "uint32") or not isinstance(count, int) or not isinstance(characters, int):
            raise Damaged("meta.json is not of a token store")
        tokens = raw_array(folder / "tokens.bin", dtype, count)
        sentences = offsets(folder / "sentences.npy", count)
        documents = offsets(folder / "documents.npy", len(sentences) - 1)
        histogram = npy_array(folder / "histogram.npy", np.int64, None)
        labels = None if names is None else _labels(folder / "labels.npy", len(documents) - 1, names)
        return cls(tokens, sentences, documents, histogram, characters, labels, tuple(names or ()))

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def document_starts(self) -> np.ndarray:
        """int64 [D + 1]: where each document begins in `tokens`."""
        return np.asarray(self.sentences)[np.asarray(self.documents)]


def _labels(path: Path, documents: int, names: Any) -> np.ndarray:
    """The labels of a store; Damaged unless each of its documents has one, of the classes `names`."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Damaged("meta.json has no list of classes")
    if not names:
        return npy_array(path, np.float32, documents)
    try:
        labels = npy_array(path, np.int64, documents)
    except Damaged:
        return npy_array(path, np.float32, documents, len(names))
    if documents and not 0 <= labels.min() <= labels.max() < len(names):
        raise Damaged(f"{path.name} has other classes than meta.json")
    return labels


def write_store(folder: Path, documents: Iterable[Document], tokenizer: Tokenizer) -> None:
    """Tokenise `documents` into an empty `folder`, block by block; the documents are streamed."""
    with open(folder / "tokens.bin", "wb") as out:
        store = _tokenise(documents, tokenizer, lambda flat: out.write(flat.data))
    for name in ("sentences", "documents", "histogram"):
        save_npy(folder / f"{name}.npy", getattr(store, name))
    tokens, characters = int(store.sentences[-1]), store.characters
    meta = {"format": FORMAT, "dtype": store.tokens.dtype.name, "tokens": tokens, "characters": characters}
    (folder / "meta.json").write_text(json.dumps(meta))


def store_in_memory(documents: Iterable[Document], tokenizer: Tokenizer) -> TokenStore:
    """The same store in memory."""
    parts: list[np.ndarray] = []
    store = _tokenise(documents, tokenizer, parts.append)
    return replace(store, tokens=np.concatenate([store.tokens, *parts]))


def _tokenise(documents: Iterable[Document], tokenizer: Tokenizer, take: Callable[[np.ndarray], object]) -> TokenStore:
    """A store of `documents` with empty `tokens`: these are passed to `take`, uint16 or uint32 [n] per block."""
    encode = TextEncoder(tokenizer)
    lengths: list[np.ndarray] = []
    last = bytearray()
    """Whether each part is the last one of its sentence."""
    per_document = array("q")
    histogram = np.zeros(encode.vocabulary, dtype=np.int64)
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
        flat, sizes = encode(block)
        lengths.append(sizes)
        histogram += np.bincount(flat, minlength=encode.vocabulary)
        take(flat)
    behind = np.concatenate([np.empty(0, np.int64), *lengths]).cumsum()[np.frombuffer(last, dtype=bool)]
    starts = np.concatenate([[0], behind])
    ends = np.concatenate([[0], np.array(per_document, dtype=np.int64)]).cumsum()
    return TokenStore(np.empty(0, encode.dtype), starts, ends, histogram, characters)


def _block(stream: Iterator[str]) -> list[str]:
    """The next texts up to the limits of a block; [] at the end."""
    block, characters = [], 0
    for text in stream:
        block.append(text)
        characters += len(text)
        if len(block) == _SENTENCES_AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
            break
    return block


def add_labels(folder: Path, labels: np.ndarray, names: Sequence[str]) -> None:
    """Add a label per document to the store in `folder`; `names` are the classes, empty for regression."""
    save_npy(folder / "labels.npy", labels)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"label_names": list(names)}))
