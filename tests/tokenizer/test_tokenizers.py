"""Tokenizers: deterministic training, saving and loading, special pieces, word boundaries, sampling of large text."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import random
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import elsewhere
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lmctl.core.errors import ConfigError, DataError, DiskError
from lmctl.mix.mix import Mix, Task
from lmctl.objective.clm import CausalLM
from lmctl.objective.denoise import Denoise
from lmctl.objective.mlm import MaskedLM
from lmctl.tokenizer import training
from lmctl.tokenizer.bpe import Bpe
from lmctl.tokenizer.char import Char
from lmctl.tokenizer.pretrained import Pretrained
from lmctl.tokenizer.training import SPECIAL, reread
from lmctl.tokenizer.unigram import Unigram
from lmctl.tokenizer.vocabulary import content_fingerprint, vocabulary
from lmctl.tokenizer.word import Word
from lmctl.tokenizer.wordpiece import WordPiece
from lmctl.train.prepare import tokenizer_key

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


@pytest.fixture(scope="module", params=sorted(SMALL))
def spec(request):
    return SMALL[request.param]


@pytest.fixture(scope="module")
def tokenizer(spec):
    return spec.obtain(iter(SENTENCES))


def test_special_pieces_and_frames(spec, tokenizer):
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


def test_decoding_is_readable(spec, tokenizer):
    text = "The reader walked the walking pictures, and nobody walked it."
    decoded = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)
    assert decoded == (text.lower() if isinstance(spec, WordPiece) else text)


def test_saved_and_loaded_it_encodes_the_same(tokenizer, tmp_path):
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


def fingerprints() -> list[str]:
    """Of every kind on the sentences, and on letters that are full of ties."""
    letters = random.Random(0)
    ties = ["".join(letters.choices("abcdefgh ", k=200)) for _ in range(100)]
    made = [spec.obtain(iter(SENTENCES)) for spec in SMALL.values()]
    made += [SMALL[kind].obtain(iter(ties)) for kind in ("wordpiece", "bpe", "char", "word")]
    return list(map(content_fingerprint, made))


def test_another_process_trains_the_same(tmp_path):
    code = "from test_tokenizers import fingerprints; print(*fingerprints())"
    found = elsewhere(code, folder=Path(__file__).parent, cache=tmp_path, TOKENIZERS_PARALLELISM="true")
    assert found.split() == fingerprints()


@pytest.mark.parametrize("sentences", [["a"], ["hello world"], ["好"], ["one two three."] * 3], ids=str)
def test_a_tiny_text_gives_a_small_vocabulary_and_none_is_an_error(spec, sentences):
    tokenizer = dataclasses.replace(spec, vocab_size=8192).obtain(iter(sentences))
    assert len(SPECIAL) <= len(tokenizer) < 300
    assert tokenizer(sentences[0])["input_ids"]
    with pytest.raises(DataError, match="no text"):
        spec.obtain(iter(()))


@pytest.mark.parametrize(
    "make", [lambda: WordPiece(vocab_size=5), lambda: Bpe(vocab_size=200), lambda: Word(min_frequency=0)]
)
def test_options_out_of_range(make):
    with pytest.raises(ValueError, match=r"(vocab_size|min_frequency) must be at least"):
        make()


@pytest.mark.parametrize(
    ("kind", "more"),
    [("wordpiece", ["今", "天"]), ("bpe", ["nobody"]), ("unigram", ["nobody"]), ("word", ["今", "天"])],
)
def test_words_begin_where_they_should(kind, more):
    words = ["unpacks", "the", "unthinkable", "thinnest", ",", *more]
    tokenizer = SMALL[kind].obtain(iter(SENTENCES))
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
    assert known.continues[ids].any() == (kind != "word")


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
    with pytest.raises(ConfigError, match=r"tokenizer.json is damaged"):
        Pretrained(str(tmp_path)).obtain(iter(()))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        Pretrained("nobody/has-this-model").obtain(iter(()))


def test_every_character_is_its_own_word_and_line_breaks_are_characters():
    tokenizer = Char().obtain(iter(["To be,\n", "\n", "or not.\n"]))
    known = vocabulary(tokenizer)
    assert not known.continues.any()
    assert known.special.nonzero()[0].tolist() == [0, 1, 2, 3, 4]
    assert tokenizer.decode(tokenizer("be\n\nor", add_special_tokens=False)["input_ids"]) == "be\n\nor"


def test_an_error_of_whoever_reads_the_text_is_not_one_of_the_temporary_file(monkeypatch):
    def damaged():
        yield "A sentence."
        raise OSError("damaged")

    with pytest.raises(OSError, match=r"^damaged$"), reread(damaged(), 100):
        pass

    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", lambda *a, **k: Full())
    with pytest.raises(DiskError, match="no room for training text"), reread(["A sentence."], 100):
        pass


def test_the_key_follows_the_pieces_that_objectives_add():
    """T5 after BERT on one text must not meet a tokenizer without sentinels."""

    def key(*objectives: Any, text: str = "the same") -> str:
        tasks = {f"t{number}": Task(objective, None) for number, objective in enumerate(objectives)}  # type: ignore[arg-type]
        return json.dumps(tokenizer_key(WordPiece(), Mix(tasks), {"corpus": {"files": text}}), sort_keys=True)

    assert Denoise().pieces
    assert key(MaskedLM()) == key(MaskedLM(mask_rate=0.3)) == key(CausalLM())
    others = {key(MaskedLM()), key(Denoise()), key(Denoise("bart")), key(MaskedLM(), Denoise())}
    assert key(Denoise("bart")) == key(MaskedLM())
    assert len(others) == 2
    assert key(MaskedLM()) != key(MaskedLM(), text="another")


OTHER = {"vocab_size": 40, "lowercase": True, "min_frequency": 40, "punctuation": False}
"""Another legal value of each field than those of `SMALL`, which matters on `SENTENCES`."""


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, field.name) for kind, spec in SMALL.items() for field in dataclasses.fields(spec)]
)
def test_every_field_changes_the_tokenizer(kind, field):
    spec = SMALL[kind]
    other = not getattr(spec, field) if isinstance(getattr(spec, field), bool) else OTHER[field]
    if kind == "bpe" and field == "vocab_size":  # there are 256 bytes
        other = 300
    changed = dataclasses.replace(spec, **{field: other})
    assert changed.identity() not in [other.identity() for other in SMALL.values()]
    texts = [*SENTENCES, "Crème BRÛLÉE don't"] * 2
    assert content_fingerprint(changed.obtain(iter(texts))) != content_fingerprint(spec.obtain(iter(texts)))


@pytest.mark.parametrize(
    "text",
    ["में आप हिन्दी बोलते हैं", "ฉันกินข้าวที่บ้าน", "বাংলা ভাষা", "がぎぐげご パン", "הַיֶּלֶד הוֹלֵךְ", "한국어 문장입니다"],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_lower_casing_keeps_what_is_no_accent(text, form):
    text = unicodedata.normalize(form, text)
    tokenizer = WordPiece(vocab_size=300).obtain(iter([text] * 5))
    assert "".join(tokenizer.tokenize(text)).replace("##", "") == unicodedata.normalize("NFC", text).replace(" ", "")
    assert "lmctl_notes" not in tokenizer.init_kwargs


def test_accents_that_go_are_spoken_of_where_there_are_many(tmp_path):
    few, many = "The café is open on all days of the week but Sunday.", "Tôi đang học tiếng Việt ở trường đại học"
    tokenizer = WordPiece().obtain(iter([many] * 3))
    assert tokenizer.tokenize("Tiếng Việt") == ["tieng", "viet"]
    tokenizer.save_pretrained(tmp_path)
    (note,) = AutoTokenizer.from_pretrained(tmp_path).init_kwargs["lmctl_notes"]
    assert "tokenizer.lowercase=false keeps them" in note
    assert "lmctl_notes" not in WordPiece().obtain(iter([few] * 3)).init_kwargs
    cased = WordPiece(lowercase=False).obtain(iter([many] * 3))
    assert cased.tokenize(many) == many.split()
    assert "lmctl_notes" not in cased.init_kwargs


def test_decomposed_text_with_more_characters_than_fit(spec):
    syllables = [chr(0xAC00 + 37 * n) for n in range(250)]
    lines = ["".join(syllables[n : n + 5]) + " 豈 更" for n in range(0, 250, 5)]
    decomposed = [unicodedata.normalize("NFD", line) for line in lines]
    spec = dataclasses.replace(spec, vocab_size=400 if isinstance(spec, Bpe) else 100)
    tokenizer = spec.obtain(iter(decomposed))
    assert len(tokenizer) <= spec.vocab_size
    composed = [unicodedata.normalize("NFC", line) for line in lines]
    assert tokenizer(decomposed).input_ids == tokenizer(composed).input_ids


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", [WordPiece(), Bpe(vocab_size=2000)], ids=["wordpiece", "bpe"])
def test_a_word_without_end_does_not_hold_training_up(kind):
    """Base64 or DNA; the trainers' own time is quadratic in a word's length, some hours for this one."""
    letters = "".join(random.Random(3).choices("ACGT", k=1_000_000))
    assert len(kind.obtain(iter(["some words", letters, "some words"]))) > 5


def test_of_much_text_a_sample_is_enough(monkeypatch, spec):
    monkeypatch.setattr(training, "CHARACTERS", 20_000)
    monkeypatch.setattr(training, "CHARACTERS_PER_PIECE", 1)
    with reread((f"sentence {n} of many" for n in range(20_000)), 20_000) as text:
        kept = list(text)
        assert sum(map(len, kept)) == text.characters <= 20_000
    numbers = np.array([int(line.split()[1]) for line in kept])
    assert len(numbers) > 300
    assert (numbers % 2).mean() == pytest.approx(0.5, abs=0.1)  # pairs of texts come in turns
    assert numbers.mean() == pytest.approx(10_000, rel=0.15)
    tokenizer = spec.obtain(f"The reader number {n} walked." for n in range(5_000))
    (note,) = tokenizer.init_kwargs["lmctl_notes"]
    assert note.startswith("trained on a sample of ")
    assert tokenizer.unk_token_id not in tokenizer("The reader walked.").input_ids
