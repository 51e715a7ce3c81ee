"""Tokenizers: trained alike in every process, saved and loaded unchanged, known to the rest by their vocabulary."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lmctl.core.errors import ConfigError, DataError, DiskError
from lmctl.core.sources import TokenizerSpec
from lmctl.tokenizer.bpe import Bpe
from lmctl.tokenizer.char import Char
from lmctl.tokenizer.pretrained import Pretrained
from lmctl.tokenizer.training import SPECIAL, reread
from lmctl.tokenizer.unigram import Unigram
from lmctl.tokenizer.vocabulary import content_fingerprint, vocabulary
from lmctl.tokenizer.word import Word
from lmctl.tokenizer.wordpiece import WordPiece

ROOT = Path(__file__).parent.parent

SENTENCES = [
    f"{subject} {verb} the {kind} {thing}, and nobody {verb} it."
    for subject in ("The reader", "A walker", "Some painter", "Every thinker")
    for verb in ("painted", "walked", "readied", "rethinks", "unpacks")
    for kind in ("readable", "unpainted", "walking", "thinnest")
    for thing in ("pictures", "packages", "thoughts")
] + ["今天天气很好，我们去公园。", "他们今天去看书。"] * 10

SMALL: dict[str, Any] = {
    "wordpiece": WordPiece(vocab_size=160),
    "bpe": Bpe(vocab_size=400),
    "unigram": Unigram(vocab_size=160),
    "char": Char(vocab_size=160),
    "word": Word(vocab_size=160),
}


@pytest.fixture(params=sorted(SMALL))
def spec(request):
    return SMALL[request.param]


@pytest.mark.parametrize("option", sorted((ROOT / "conf" / "tokenizer").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_yaml_shows_every_field(option):
    values = OmegaConf.to_container(OmegaConf.load(option))
    assert isinstance(values, dict)
    module, _, name = values.pop("_target_").rpartition(".")
    fields = dataclasses.fields(getattr(importlib.import_module(module), name))
    assert list(values) == [field.name for field in fields]
    for field in fields:
        if field.default is not dataclasses.MISSING:
            assert values[field.name] == field.default
    assert option.read_text(encoding="utf-8").startswith("# ")


def test_every_kind_is_a_tokenizer_spec(spec):
    assert isinstance(spec, TokenizerSpec)


def test_special_pieces_and_frames(spec):
    tokenizer = spec.obtain(iter(SENTENCES))
    assert len(tokenizer) <= spec.vocab_size
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == [0, 1, 2, 3, 4]
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    one = tokenizer("The reader walked.")
    assert one["input_ids"][0] == 2
    assert one["input_ids"][-1] == 3
    two = tokenizer("The reader walked.", "A painter.")
    second = len(two["input_ids"]) - len(one["input_ids"])
    assert two["input_ids"][: len(one["input_ids"])] == one["input_ids"]
    assert two["input_ids"][-1] == 3
    assert two["token_type_ids"] == [0] * len(one["input_ids"]) + [1] * second
    assert 4 in tokenizer("The [MASK] walked.")["input_ids"]


def test_decoding_is_readable(spec):
    tokenizer = spec.obtain(iter(SENTENCES))
    text = "The reader walked the walking pictures, and nobody walked it."
    decoded = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)
    assert decoded == (text.lower() if isinstance(spec, WordPiece) else text)


def test_saved_and_loaded_it_encodes_the_same(spec, tmp_path):
    tokenizer = spec.obtain(iter(SENTENCES))
    tokenizer.save_pretrained(tmp_path / "model")
    texts = [*SENTENCES[::40], "Ünknown wörds 龍 !", "the [MASK] reader"]
    for loaded in (AutoTokenizer.from_pretrained(tmp_path / "model"), Pretrained(str(tmp_path)).obtain(iter(()))):
        assert loaded(texts, texts[::-1]).data == tokenizer(texts, texts[::-1]).data
        assert content_fingerprint(loaded) == content_fingerprint(tokenizer)
        before, after = vocabulary(tokenizer), vocabulary(loaded)
        assert (before.size, before.mask, before.unk) == (after.size, after.mask, after.unk)
        assert (before.continues == after.continues).all()
        assert loaded.model_max_length > 1 << 30


def test_a_call_does_not_change_the_fingerprint(spec):
    tokenizer = spec.obtain(iter(SENTENCES))
    before = content_fingerprint(tokenizer)
    tokenizer(["a", "longer text"], padding=True, truncation=True, max_length=8)
    assert content_fingerprint(tokenizer) == before
    assert content_fingerprint(spec.obtain(iter(SENTENCES[:50]))) != before


def test_two_processes_train_the_same():
    code = """
from tests.test_tokenizers import SENTENCES, SMALL
import random
from lmctl.tokenizer.vocabulary import content_fingerprint
for spec in SMALL.values():
    print(spec, content_fingerprint(spec.obtain(iter(SENTENCES))))
letters = random.Random(0)  # Full of ties.
ties = ["".join(letters.choices("abcdefgh ", k=200)) for _ in range(100)]
for name in ("wordpiece", "bpe", "char", "word"):
    print(name, content_fingerprint(SMALL[name].obtain(iter(ties))))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**environment, "PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed, parallel in (("1", "true"), ("2", "false"))
    ]
    first, second = (process.communicate(timeout=120)[0] for process in running)
    assert len(first.splitlines()) == len(SMALL) + 4
    assert first == second


@pytest.mark.parametrize("sentences", [["a"], ["hello world"], ["好"], ["one two three."] * 3], ids=str)
def test_a_tiny_text_gives_a_small_vocabulary(spec, sentences):
    tokenizer = dataclasses.replace(spec, vocab_size=8192).obtain(iter(sentences))
    assert len(SPECIAL) <= len(tokenizer) < 300
    assert tokenizer(sentences[0])["input_ids"]


def test_more_characters_than_pieces(spec):
    wide = ["".join(chr(0x4E00 + n) for n in range(start, start + 50)) for start in range(0, 2000, 50)]
    wide += [f"{chr(0x400 + n)}{chr(0x401 + n)}x" for n in range(80)]
    tokenizer = spec.obtain(iter(wide + SENTENCES))
    assert len(tokenizer) <= spec.vocab_size
    assert tokenizer(wide[-1])["input_ids"]


def test_no_text(spec):
    with pytest.raises(DataError, match="no text"):
        spec.obtain(iter(()))


def test_options_change_the_identity():
    specs: list[TokenizerSpec] = [*SMALL.values(), WordPiece()]
    specs += [WordPiece(lowercase=False), Word(punctuation=False), Char(min_frequency=2)]
    identities = [repr(sorted(spec.identity().items())) for spec in specs]
    assert len(set(identities)) == len(identities)
    assert WordPiece().identity() == WordPiece().identity()


@pytest.mark.parametrize(
    "make", [lambda: WordPiece(vocab_size=5), lambda: Bpe(vocab_size=200), lambda: Word(min_frequency=0)]
)
def test_bad_options(make):
    with pytest.raises(ValueError, match=r"(vocab_size|min_frequency) must be at least"):
        make()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (WordPiece(vocab_size=160), ["unpacks", "the", "unthinkable", "thinnest", ",", "今", "天"]),
        (Bpe(vocab_size=400), ["unpacks", "the", "unthinkable", "thinnest", ",", "nobody"]),
        (Unigram(vocab_size=160), ["unpacks", "the", "unthinkable", "thinnest", ",", "nobody"]),
        (Word(vocab_size=160), ["unpacks", "the", "unthinkable", "thinnest", ",", "今", "天"]),
    ],
    ids=["wordpiece", "bpe", "unigram", "word"],
)
def test_words_begin_where_they_should(spec, words):
    tokenizer = spec.obtain(iter(SENTENCES))
    known = vocabulary(tokenizer)
    text = " ".join(words).replace(" ,", ",")
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = np.array(encoding["input_ids"])
    starts = ~known.continues[ids]
    grouped: list[str] = []
    for start, (begin, end) in zip(starts, encoding["offset_mapping"], strict=True):
        if start or not grouped:
            grouped.append("")
        grouped[-1] += text[begin:end]
    assert [word for word in map(str.strip, grouped) if word] == words
    if not isinstance(spec, Word):
        assert known.continues[ids].any()


def test_every_character_is_its_own_word():
    known = vocabulary(Char().obtain(iter(SENTENCES)))
    assert not known.continues.any()
    assert known.special.nonzero()[0].tolist() == [0, 1, 2, 3, 4]


def test_a_tokenizer_without_the_special_pieces_is_refused(tmp_path):
    bare = Tokenizer(models.WordLevel({"a": 0, "<pad>": 1}, unk_token="a"))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="<pad>").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no sep or eos token") as caught:
        vocabulary(Pretrained(str(tmp_path)).obtain(iter(())))
    assert "tokenizer=wordpiece" in str(caught.value.hint)


def test_pretrained_paths(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        Pretrained(str(tmp_path / "missing")).identity()
    with pytest.raises(ConfigError, match="has no tokenizer"):
        Pretrained(str(tmp_path)).identity()
    WordPiece(vocab_size=100).obtain(iter(SENTENCES)).save_pretrained(tmp_path / "model")
    before = Pretrained(str(tmp_path)).identity()
    assert before == Pretrained(str(tmp_path / "model")).identity()
    WordPiece(vocab_size=120).obtain(iter(SENTENCES)).save_pretrained(tmp_path / "model")
    assert Pretrained(str(tmp_path)).identity() != before
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="is damaged"):
        Pretrained(str(tmp_path)).obtain(iter(()))
    with pytest.raises(ConfigError, match="is damaged"):
        Pretrained("nobody/has-this-model").obtain(iter(()))


def test_line_breaks_are_characters_like_others():
    tokenizer = Char().obtain(iter(["To be,\n", "\n", "or not.\n"]))
    assert "\n" in tokenizer.get_vocab()
    assert tokenizer.decode(tokenizer("be\n\nor", add_special_tokens=False)["input_ids"]) == "be\n\nor"


def test_an_error_of_whoever_reads_the_text_is_not_one_of_the_temporary_file(monkeypatch):
    def damaged():
        yield "A sentence."
        raise OSError("damaged")

    with pytest.raises(OSError, match=r"^damaged$"), reread(damaged()):
        pass

    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", lambda *a, **k: Full())
    with pytest.raises(DiskError, match="no room for training text"), reread(["A sentence."]):
        pass
