"""Augmentations: what they may change, what they must keep; reproducible from the generator they are given."""

from __future__ import annotations

import numpy as np
import pytest
from small import tokenizer, vocabulary

from lmctl.augment.char_noise import CharNoise
from lmctl.augment.none import Unchanged
from lmctl.augment.shuffle import Shuffle
from lmctl.augment.span_crop import SpanCrop
from lmctl.augment.token_noise import TokenNoise
from lmctl.augment.tokens import word_numbers
from lmctl.augment.word_dropout import WordDropout
from lmctl.core.counter_rng import CounterRng
from lmctl.tokenizer.char import Char
from lmctl.tokenizer.vocabulary import vocabulary as vocabulary_of

V, TOKENIZER = vocabulary(), tokenizer()
WORDS = np.array([5, 6, 66, 67, 7, 8, 68, 9, 10, 11])
"""w0 w1##s1##s2 w2 w3##s3 w4 w5 w6: seven words in ten pieces."""
ALL = [
    TokenNoise(),
    TokenNoise("bert"),
    WordDropout(0.3),
    SpanCrop(0.5),
    Shuffle(),
    CharNoise(0.2, 0.2),
]


def rewrite(augment, pieces: np.ndarray, seed: int = 0) -> np.ndarray:
    return augment.rewriter(TOKENIZER, V)(pieces, np.random.default_rng(seed))


def test_nothing_is_nothing():
    assert Unchanged().rewriter(TOKENIZER, V) is None


@pytest.mark.parametrize("augment", ALL, ids=lambda a: type(a).__name__)
def test_the_generator_decides_and_something_is_left(augment):
    before = WORDS.copy()
    results = [tuple(rewrite(augment, WORDS, seed)) for seed in range(40)]
    assert results == [tuple(rewrite(augment, WORDS, seed)) for seed in range(40)]
    assert (before == WORDS).all()
    assert all(results)
    if not isinstance(augment, Shuffle):  # one sentence: nothing to shuffle
        assert len(set(results)) > 5


@pytest.mark.parametrize("augment", ALL, ids=lambda a: type(a).__name__)
def test_several_texts_become_what_they_would_one_after_the_other(augment):
    """Texts that share a generator as well, such as both sentences of a pair."""
    made, draws = augment.rewriter(TOKENIZER, V), CounterRng(1, "augment")
    texts, rows = [np.roll(WORDS, place)[: 3 + place] for place in range(8)], np.arange(4)
    one, other = (draws.generators(rows, rows) for _ in range(2))
    after = [made(text, generator) for place, generator in enumerate(one) for text in texts[2 * place : 2 * place + 2]]
    together = made.all(texts, (generator for generator in other for _ in range(2)))
    assert [text.tolist() for text in together] == [text.tolist() for text in after]


def words_of(pieces: np.ndarray) -> list[tuple[int, ...]]:
    numbers = word_numbers(pieces, V)
    return [tuple(pieces[numbers == n].tolist()) for n in range(numbers[-1] + 1)]


def test_words_are_dropped_whole():
    own = words_of(WORDS)
    kept = [words_of(rewrite(WordDropout(0.3), WORDS, seed)) for seed in range(300)]
    assert all(set(words) <= set(own) for words in kept)
    assert np.mean([len(words) for words in kept]) == pytest.approx(0.7 * len(own), rel=0.05)


def test_a_crop_is_a_run_of_words():
    own = words_of(WORDS)
    for seed in range(50):
        words = words_of(rewrite(SpanCrop(0.5), WORDS, seed))
        assert any(own[i : i + len(words)] == words for i in range(len(own)))
        assert len(words) >= round(0.5 * len(own))


def test_switchout_replaces_as_many_as_its_distribution_says():
    text = np.tile(np.arange(5, 65), 2)
    changed = [int((rewrite(TokenNoise(tau=1.0), text, seed) != text).sum()) for seed in range(2000)]
    weights = np.exp(-np.arange(len(text) + 1))
    expected = (np.arange(len(text) + 1) * weights / weights.sum()).sum()
    assert np.mean(changed) == pytest.approx(expected, rel=0.1)


def test_bert_noise_masks_most_of_what_it_takes():
    text = np.tile(np.arange(5, 65), 20)
    noisy = rewrite(TokenNoise("bert", rate=0.2), text)
    assert (noisy == V.mask).mean() == pytest.approx(0.16, abs=0.03)
    assert not set(noisy[noisy != text].tolist()) & {V.pad, V.cls, V.sep, V.unk}


def test_sentences_change_places():
    own = Char().obtain(iter(["abcdefg.。"]))
    text, ends = (np.array(own(t, add_special_tokens=False)["input_ids"]) for t in ("ab.c。def.", ".。"))
    rewriter = Shuffle().rewriter(own, vocabulary_of(own))
    seen = set()
    for seed in range(30):
        out = rewriter(text, np.random.default_rng(seed))
        parts = np.split(out, np.flatnonzero(np.isin(out, ends)) + 1)
        assert sorted(map(own.decode, parts)) == ["", "ab.", "c。", "def."]
        seen.add(own.decode(out))
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TokenNoise("swap"), "style must be one of"),
        (lambda: TokenNoise(tau=0), "tau must be above 0"),
        (lambda: WordDropout(1.0), "rate is a probability"),
        (lambda: SpanCrop(0.0), "least is a share"),
        (lambda: CharNoise(2.0), "typo_rate is a probability"),
    ],
)
def test_options_out_of_range(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()
