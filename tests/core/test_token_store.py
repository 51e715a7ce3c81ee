"""The memory-mapped token store: what is read back is what was tokenised."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from lmctl.core.cache_check import Damaged
from lmctl.core.token_store import TokenStore, store_in_memory, write_store

DOCUMENTS = [["a b c", "a"], ["b b unknown"], ["c a b", "a c", "b"]]


def tokenizer(pieces: int = 4) -> Tokenizer:
    vocabulary = {"[UNK]": 0, "a": 1, "b": 2, "c": 3, **{f"x{n}": n for n in range(4, pieces)}}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


@pytest.mark.parametrize(("pieces", "dtype"), [(4, np.uint16), (1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)])
def test_every_sentence_comes_back(tmp_path, pieces, dtype):
    write_store(tmp_path, iter(DOCUMENTS), tokenizer(pieces))
    store = TokenStore.open(tmp_path)
    assert store.tokens.dtype == dtype
    spelled = np.array(["unknown", "a", "b", "c"])
    found = [
        [
            " ".join(spelled[store.tokens[store.sentences[s] : store.sentences[s + 1]]])
            for s in range(store.documents[d], store.documents[d + 1])
        ]
        for d in range(len(store.documents) - 1)
    ]
    assert found == DOCUMENTS
    assert len(store) == 13
    assert store.document_starts.tolist() == [0, 4, 7, 13]
    assert store.histogram[:4].tolist() == [1, 4, 5, 3]
    assert store.characters == sum(len(sentence) for document in DOCUMENTS for sentence in document)


def test_blocks_of_sentences_join_without_a_seam(tmp_path, monkeypatch):
    (tmp_path / "whole").mkdir()
    (tmp_path / "blocks").mkdir()
    write_store(tmp_path / "whole", DOCUMENTS, tokenizer())
    monkeypatch.setattr("lmctl.core.token_store._SENTENCES_AT_ONCE", 2)
    write_store(tmp_path / "blocks", DOCUMENTS, tokenizer())
    for file in sorted((tmp_path / "whole").iterdir()):
        assert file.read_bytes() == (tmp_path / "blocks" / file.name).read_bytes(), file.name


def test_a_store_in_memory_is_the_one_on_disk(tmp_path, monkeypatch):
    write_store(tmp_path, DOCUMENTS, tokenizer())
    monkeypatch.setattr("lmctl.core.token_store._SENTENCES_AT_ONCE", 2)
    here, there = store_in_memory(iter(DOCUMENTS), tokenizer()), TokenStore.open(tmp_path)
    for name in ("tokens", "sentences", "documents", "histogram"):
        assert np.array_equal(getattr(here, name), getattr(there, name)), name
        assert getattr(here, name).dtype == getattr(there, name).dtype, name
    assert here.characters == there.characters
    assert len(store_in_memory([], tokenizer())) == 0


def test_a_store_that_was_cut_short_does_not_open(tmp_path):
    write_store(tmp_path, DOCUMENTS, tokenizer())
    tokens = tmp_path / "tokens.bin"
    tokens.write_bytes(tokens.read_bytes()[:-2])
    with pytest.raises(Damaged, match=r"tokens.bin has 24 bytes, not 26"):
        TokenStore.open(tmp_path)
