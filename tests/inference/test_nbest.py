"""Word error rate, rescoring of n-best lists, minimal pairs, typing noise."""

from __future__ import annotations

import json
import math

import jiwer
import numpy as np
import pytest
import torch
import use_models
from hypothesis import given, settings
from hypothesis import strategies as st

from lmctl.core.errors import DataError
from lmctl.core.typing_errors import QWERTY, drop_words, mistype, swap_characters, swap_words, typos, words
from lmctl.inference.letter_case import cased
from lmctl.inference.nbest import Lists, Tuned, Utterance, read_lists, rescored, tune, with_lm
from lmctl.inference.pairs import judge, read_pairs
from lmctl.inference.wer import word_errors

SENTENCES = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=80).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(SENTENCES, st.one_of(SENTENCES, st.just("")))
def test_word_errors_are_jiwers(reference, hypothesis):
    measures = jiwer.process_words(reference, hypothesis)
    wrong = measures.substitutions + measures.deletions + measures.insertions
    assert word_errors(reference, hypothesis) == wrong


def test_word_errors_of_an_empty_reference_are_insertions():
    assert word_errors("", "a b") == 2
    assert word_errors("", "") == 0


def line(name, reference, hyps) -> str:
    return json.dumps({"id": name, "ref": reference, "hyps": [{"text": t, "score": s} for t, s in hyps]})


def constructed(count: int, seed: int) -> list[Utterance]:
    """The recogniser slightly prefers the wrong one of two texts of the same length."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        length = int(rng.integers(3, 8))
        rows.append(
            line(number, " ".join("a" * length), [(" ".join("b" * length), -1.0), (" ".join("a" * length), -1.2)])
        )
    return read_lists(rows, "made")


def test_a_language_model_that_knows_better_wins(gpt2):
    loaded = use_models.opened(gpt2)
    with torch.no_grad():  # whatever came before, "a" is likelier than "b"
        norm, table = loaded.model.transformer.ln_f, loaded.model.transformer.wte.weight
        norm.weight.zero_()
        norm.bias.copy_(table[5] - table[6])
    dev, test = with_lm(loaded, [constructed(20, 0), constructed(30, 1)], 8, 64, "as_is")
    tuned = tune(dev)
    assert tuned.weight > 0
    assert rescored(test, tuned) == {"wer_before": 100.0, "wer_after": 0.0, "wer_oracle": 0.0}


def test_a_language_model_that_knows_nothing_does_no_harm():
    lists = constructed(20, 0)
    known = Lists(lists, np.array([[0.0, -9.0]] * 20))
    tuned = tune(known)
    assert rescored(known, tuned)["wer_after"] <= rescored(known, tuned)["wer_before"]
    assert tuned == Tuned(0.0, 0.0)


def test_the_word_bonus_finds_missing_words():
    rows = [line(n, "a b c", [("a", -1.0), ("a b c", -2.0)]) for n in range(4)]
    lists = Lists(read_lists(rows, "made"), np.zeros((4, 2)))
    tuned = tune(lists)
    assert tuned.bonus > 0.5
    assert rescored(lists, tuned)["wer_after"] == 0


def test_lists_may_differ_in_length_and_order():
    rows = [line(1, "a b", [("a c", -5.0), ("a b", -1.0)]), line(2, "c", [("d", -1.0)])]
    lists = Lists(read_lists([rows[0], "", rows[1]], "made"), np.zeros((2, 2)))
    assert lists.first.tolist() == [1, 0]
    assert lists.wer(lists.first) == pytest.approx(100 / 3)
    assert lists.wer(lists.oracle) == pytest.approx(100 / 3)


def test_every_text_is_scored_once(decoder, monkeypatch):
    asked, pieces = [], type(decoder).pieces
    monkeypatch.setattr(type(decoder), "pieces", lambda self, texts: asked.extend(texts) or pieces(self, texts))
    lists = read_lists([line(n, "a", [("A B", -1.0), ("C", -2.0)]) for n in range(5)], "made")
    list(with_lm(decoder, [lists, lists], 8, 64, "lower"))
    assert sorted(asked) == ["a b", "c"]


GOOD = {"id": "u1", "ref": "a b", "hyps": [{"text": "a b", "score": -1.0}, {"text": "a c", "score": -2}]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("not json", "not an n-best list"),
        ('{"id": 1, "ref": "a"}', "not an n-best list: no 'hyps'"),
        ({"hyps": []}, "utterance u1 has no hypotheses"),
        ({"hyps": [{"text": "a", "score": math.nan}]}, "hypothesis 1: 'score' is nan"),
        ({"hyps": [{"text": "a", "score": -1}, {"text": "a", "score": -math.inf}]}, "hypothesis 2: 'score' is -inf"),
        ({"hyps": [{"text": "a", "score": 10**400}]}, "hypothesis 1: 'score' is too large"),
        ({"hyps": [{"text": "a", "score": "-1.5"}]}, "hypothesis 1: 'score' is str, not a number"),
        ({"hyps": [{"text": "a", "score": True}]}, "hypothesis 1: 'score' is bool, not a number"),
        ({"hyps": [{"text": None, "score": 1}]}, "hypothesis 1: 'text' is null, not text"),
        ({"hyps": [{"score": 1}]}, "hypothesis 1: no 'text'"),
        ({"hyps": ["a"]}, "hypothesis 1: not a JSON object"),
        ({"hyps": {"text": "a", "score": 1}}, "'hyps' is dict, not a list"),
        ({"hyps": None}, "'hyps' is null, not a list"),
        ({"ref": None}, "'ref' is null, not text"),
        ({"ref": 5}, "'ref' is int, not text"),
        ({"id": None}, "'id' is null, not text or a whole number"),
        ({"ref": "\ud83d"}, "half a surrogate pair"),
    ],
)
def test_a_list_that_cannot_be_compared_is_refused_by_its_line(row, message):
    """A NaN would win every comparison and null would count as the word None: errors of nobody."""
    bad = row if isinstance(row, str) else json.dumps(GOOD | row)
    with pytest.raises(DataError) as caught:
        read_lists([json.dumps(GOOD), "", bad], "lists")
    assert str(caught.value).startswith("lists:3: ")
    assert message in str(caught.value)


def test_a_file_without_lists_is_refused():
    with pytest.raises(DataError, match="lists has no n-best lists"):
        read_lists(["", ""], "lists")


@pytest.mark.parametrize(
    ("case", "text"),
    [("as_is", "WELL I SAID IT IS"), ("lower", "well i said it is"), ("sentence", "Well I said it is")],
)
def test_case(case, text):
    assert cased("WELL I SAID IT IS", case) == text


def test_pairs_are_judged_in_order(decoder):
    rows = ["a b\tc d e", '{"good": "a", "bad": "b"}', "", '{"sentence_good": "the cat", "sentence_bad": "cat the"}']
    found = list(judge(decoder, read_pairs(iter(rows), "pairs"), 2, 64))
    assert [verdict.pair for verdict in found] == [("a b", "c d e"), ("a", "b"), ("the cat", "cat the")]
    alone = next(judge(decoder, read_pairs(iter(rows[1:]), "pairs"), 2, 64))
    assert (found[1].good, found[1].bad) == pytest.approx((alone.good, alone.bad), rel=1e-5)


@pytest.mark.parametrize("row", ["one column", "a\tb\tc", '{"good": "a"}', '{"good": '])
def test_what_is_no_pair_is_refused_by_its_line(row):
    with pytest.raises(DataError, match=r"pairs:2: not "):
        list(read_pairs(iter(["a\tb", row]), "pairs"))


def test_words_of_both_scripts():
    assert words("Deep学习 is, 好!") == ["Deep", "学", "习", "is,", "好", "!"]


def test_neighbours_on_the_keyboard_are_mutual():
    assert set("qwasz") & set(QWERTY["a"]) == set("qwsz")
    assert all(key in QWERTY[other] for key, near in QWERTY.items() for other in near)


@pytest.mark.parametrize("noise", [typos, mistype, swap_characters, drop_words, swap_words])
@settings(max_examples=50, deadline=None)
@given(text=st.text(alphabet="abc XYZ.学习好\n", max_size=40), rate=st.floats(0, 1), seed=st.integers(0, 99))
def test_noise_is_reproducible_and_none_at_rate_0(noise, text, rate, seed):
    assert noise(text, 0.0, np.random.default_rng(seed)) == text
    assert noise(text, rate, np.random.default_rng(seed)) == noise(text, rate, np.random.default_rng(seed))


def test_typos_hit_neighbouring_keys_at_the_given_rate():
    text = "thequickBROWNfox" * 300
    noisy = typos(text, 0.1, np.random.default_rng(0))
    wrong = [(a, b) for a, b in zip(text, noisy, strict=True) if a != b]
    assert len(wrong) / len(text) == pytest.approx(0.1, abs=0.01)
    assert all(b.lower() in QWERTY[a.lower()] and (b.isdigit() or a.isupper() == b.isupper()) for a, b in wrong)


def test_chinese_typos_come_from_the_text_around():
    text = "机器学习改变了世界的面貌" * 50
    noisy = typos(text, 0.2, np.random.default_rng(0))
    assert 0 < sum(a != b for a, b in zip(text, noisy, strict=True)) / len(text) < 0.3
    assert all(b in text[max(0, i - 3) : i + 4] for i, b in enumerate(noisy))


def test_swaps_stay_within_words_and_scripts():
    noisy = swap_characters("ab 学习c", 1.0, np.random.default_rng(0))
    assert noisy == "ba 习学c"
    assert swap_characters("abcde", 1.0, np.random.default_rng(0)) == "badce"


def test_swapped_words_are_the_same_words_between_the_same_spaces():
    assert swap_words("one  two\nthree four.", 1.0, np.random.default_rng(0)) == "two  one\nfour. three"
    text = "".join(f"w{n} " for n in range(2000))
    noisy = swap_words(text, 0.1, np.random.default_rng(0))
    moved = [place - int(word[1:]) for place, word in enumerate(noisy.split())]
    assert set(moved) == {-1, 0, 1}
    assert moved.count(1) == moved.count(-1) == 100


def test_dropped_words_leave_the_others_in_order():
    text = "one two three four five six seven eight nine ten " * 40
    kept = drop_words(text, 0.3, np.random.default_rng(0)).split()
    assert len(kept) / 400 == pytest.approx(0.7, abs=0.06)
    remaining = iter(text.split())
    assert all(word in remaining for word in kept)
    assert len(words(drop_words("学习好", 1.0, np.random.default_rng(0)))) == 1
