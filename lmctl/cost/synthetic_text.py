"""Synthetic vocabularies and text, of the size of what they replace."""

from __future__ import annotations

import numpy as np

from lmctl.core.batch import Kind, LabelKind
from lmctl.core.token_store import TokenStore
from lmctl.core.vocabulary import Vocabulary

PIECES = 5
"""Special tokens: [PAD], [UNK], [CLS], [SEP], [MASK], in this order."""
SENTENCE = 24
"""Tokens in a sentence."""
DOCUMENT = 1024
"""Tokens in a document, approximately: most rows contain no document boundary, most batches do."""
CLASSES = 2
"""Assumed number of classes."""


def vocabulary(size: int, sentinels: int = 0) -> Vocabulary:
    """A vocabulary of `size` tokens, special ones first, `sentinels` last; no token continues a word."""
    special = np.zeros(size, dtype=bool)
    special[:PIECES] = True
    special[size - sentinels :] |= sentinels > 0
    marks = np.arange(size - sentinels, size)
    return Vocabulary(size, 0, 1, 2, 3, 4, special, np.zeros(size, dtype=bool), marks)


def store(kind: Kind, labels: LabelKind | None, rows: int, seq_len: int, pieces: Vocabulary) -> TokenStore:
    """Text for about `rows` full rows of `seq_len` positions: documents of sentences, or rows of one text (two for
    parallel rows), the first as long as a row and no other less than half as long."""
    generator = np.random.Generator(np.random.Philox(key=0))
    ordinary = np.flatnonzero(~pieces.special)
    texts = {"documents": 1, "labelled": 1, "parallel": 2}[kind]
    if kind == "documents":
        sentences = max(2, -(-max(2 * DOCUMENT, rows * seq_len) // SENTENCE))
        starts = np.arange(sentences + 1) * SENTENCE
        documents = np.append(np.arange(0, sentences - 1, DOCUMENT // SENTENCE), sentences)
    else:
        lengths = generator.integers(seq_len // 2, seq_len + 1, rows * texts)
        lengths[:texts] = seq_len
        starts = np.append(0, np.cumsum(lengths))
        documents = np.arange(rows + 1) * texts
    tokens = ordinary[generator.integers(0, len(ordinary), int(starts[-1]))].astype(np.uint32)
    count = len(documents) - 1
    known = labels in ("class", "classes")
    return TokenStore(
        tokens=tokens,
        sentences=starts.astype(np.int64),
        documents=documents.astype(np.int64),
        histogram=np.bincount(tokens, minlength=pieces.size),
        characters=4 * len(tokens),
        labels=_labels(labels, count, generator),
        label_names=tuple(str(number) for number in range(CLASSES)) if known else (),
    )


def _labels(kind: LabelKind | None, count: int, generator: np.random.Generator) -> np.ndarray | None:
    if kind is None:
        return None
    if kind == "class":
        return generator.integers(0, CLASSES, count)
    shape = (count, CLASSES) if kind == "classes" else (count,)
    return generator.integers(0, 2, shape).astype(np.float32)
