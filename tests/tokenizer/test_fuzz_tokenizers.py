"""Property tests of tokenizers: any text trains or is refused, ids are in range, BPE decodes to its input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers.normalizers import NFKC

from lmctl.core.errors import LmctlError
from lmctl.core.token_store import store_in_memory
from lmctl.tokenizer.bpe import Bpe
from lmctl.tokenizer.char import Char
from lmctl.tokenizer.pretrained import Pretrained
from lmctl.tokenizer.unigram import Unigram
from lmctl.tokenizer.vocabulary import vocabulary
from lmctl.tokenizer.word import Word
from lmctl.tokenizer.wordpiece import WordPiece

KINDS: dict[str, Any] = {
    "wordpiece": WordPiece,
    "bpe": Bpe,
    "unigram": Unigram,
    "char": Char,
    "word": Word,
}
ODD = "ﬁ①豈각がम\u0947é\u200d👨\u200d👩\u0000\u0001\ufeff\u00ad\u2581Ġ#[MASK] \n\t\u3000\u0300\ufffd"
TEXT = st.text(st.one_of(st.sampled_from(ODD), st.characters(exclude_categories=["Cs"])), min_size=1, max_size=30)
DOCUMENTS = st.lists(st.lists(TEXT, min_size=1, max_size=4), min_size=1, max_size=6)


def check(kind, documents, size, lowercase, tmp_path=None):
    spec = KINDS[kind](vocab_size=size + 261 * (kind == "bpe"), lowercase=lowercase)
    try:
        tokenizer = spec.obtain(sentence for document in documents for sentence in document)
    except LmctlError:
        return
    assert len(tokenizer) <= spec.vocab_size
    if tmp_path is not None:
        tokenizer.save_pretrained(tmp_path)
        tokenizer = Pretrained(str(tmp_path)).obtain(iter(()))
    known = vocabulary(tokenizer)
    store = store_in_memory(iter(documents), tokenizer.backend_tokenizer)
    assert store.tokens.size == 0 or int(store.tokens.max()) < known.size
    assert not np.isin(store.tokens, [known.mask, known.cls, known.sep]).any()  # text that spells them is text
    assert len(store.sentences) - 1 == sum(map(len, documents))
    if kind == "bpe" and not lowercase:
        for number, sentence in enumerate(sentence for document in documents for sentence in document):
            ids = store.tokens[store.sentences[number] : store.sentences[number + 1]]
            back = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
            wanted = NFKC().normalize_str(sentence)  # Python's knows letters that are younger than the library
            assert back == wanted.removeprefix(" ") if wanted.startswith(" ") else back == wanted


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(DOCUMENTS, st.integers(32, 120), st.booleans())
@example([["9BE"], ["0", "6", "18A", "A0{E"], ["123C", "1457ꀀ"]], 32, False)  # E: a word, and a rare continuation
@example([["\U00010781"]], 32, False)  # of Unicode 14
def test_any_text(kind, documents, size, lowercase):
    check(kind, documents, size, lowercase)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=2000, deadline=None)
@given(DOCUMENTS, st.integers(32, 400), st.booleans())
def test_any_text_for_longer(kind, documents, size, lowercase):
    check(kind, documents, size, lowercase)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_that_is_there_reads_odd_text(kind, tmp_path):
    check(kind, [["one two three", ODD], [ODD * 3]], 60, False, tmp_path)
