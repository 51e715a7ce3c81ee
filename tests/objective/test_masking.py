"""BERT's masking: how many, what becomes of them, whole words, and independence of the batch around a row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import vocabulary

from lmctl.core.counter_rng import CounterRng
from lmctl.objective.masking import mask_tokens

VOCABULARY = vocabulary()


def rows(count: int, length: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, VOCABULARY.size, (count, length))
    ids[:, 0], ids[:, -1] = VOCABULARY.cls, VOCABULARY.sep
    return ids


def uniforms(ids: np.ndarray, seed: int = 0) -> np.ndarray:
    draws = CounterRng(seed, "test")
    return draws.uniforms(np.zeros(len(ids), dtype=int), np.arange(len(ids)), 3 * ids.shape[1])


def test_every_row_gets_the_share_of_the_paper():
    ids = rows(50, 102)
    masked = mask_tokens(ids, uniforms(ids), VOCABULARY, 0.15)
    per_row = np.bincount(masked.positions // 102, minlength=50)
    assert (per_row == 15).all()  # round(0.15 * 100 ordinary pieces)


def test_eighty_ten_ten():
    ids = rows(400, 102)
    masked = mask_tokens(ids, uniforms(ids), VOCABULARY, 0.15)
    seen = masked.inputs.reshape(-1)[masked.positions]
    hidden = (seen == VOCABULARY.mask).mean()
    kept = (seen == masked.labels).mean()
    # 6,000 targets: three standard errors of a share of 0.8 are 0.016. Random pieces hit the right one 1 in 80.
    assert hidden == pytest.approx(0.8, abs=0.016)
    assert kept == pytest.approx(0.1 + 0.1 / 80, abs=0.012)


def test_random_pieces_are_never_special_and_cover_the_vocabulary():
    ids = rows(600, 102)
    masked = mask_tokens(ids, uniforms(ids), VOCABULARY, 0.15)
    seen = masked.inputs.reshape(-1)[masked.positions]
    drawn = set(seen[(seen != VOCABULARY.mask) & (seen != masked.labels)].tolist())
    assert drawn == set(range(5, VOCABULARY.size))


def test_what_is_not_a_target_stays_and_labels_are_what_was_there():
    ids = rows(20, 40)
    masked = mask_tokens(ids, uniforms(ids), VOCABULARY, 0.3)
    others = np.ones(ids.size, dtype=bool)
    others[masked.positions] = False
    assert (masked.inputs.reshape(-1)[others] == ids.reshape(-1)[others]).all()
    assert (ids.reshape(-1)[masked.positions] == masked.labels).all()


@given(st.integers(1, 6), st.integers(3, 40), st.floats(0.05, 0.9), st.booleans(), st.integers(0, 2**32))
def test_special_pieces_are_never_targets_and_something_always_is(count, length, rate, whole, seed):
    ids = rows(count, length, seed % 97)
    ids[0, 1:] = VOCABULARY.pad
    ids[0, 1] = 7
    masked = mask_tokens(ids, uniforms(ids, seed), VOCABULARY, rate, whole)
    assert not VOCABULARY.special[masked.labels].any()
    assert (np.bincount(masked.positions // length, minlength=count) >= 1).all()


def test_a_row_without_ordinary_pieces_has_no_targets():
    ids = np.full((1, 8), VOCABULARY.pad)
    assert len(mask_tokens(ids, uniforms(ids), VOCABULARY, 0.15).positions) == 0


@given(st.integers(0, 2**32), st.floats(0.05, 0.6))
def test_whole_words_are_taken_whole(seed, rate):
    ids = rows(4, 60, seed % 89)
    masked = mask_tokens(ids, uniforms(ids, seed), VOCABULARY, rate, whole_words=True)
    chosen = np.zeros(ids.shape, dtype=bool)
    chosen.reshape(-1)[masked.positions] = True
    for row, picks in zip(ids, chosen, strict=True):
        for place in range(2, 59):  # a continuation shares the fate of the piece before it
            if VOCABULARY.continues[row[place]]:
                assert picks[place] == picks[place - 1]


def berts(ids: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """bool [L]: whole words by the loop of google-research/bert's `create_masked_lm_predictions`, counting ordinary
    pieces only."""
    words: list[list[int]] = []
    for place, piece in enumerate(ids.tolist()):
        if VOCABULARY.special[piece]:
            continue
        if words and VOCABULARY.continues[piece] and words[-1][-1] == place - 1:
            words[-1].append(place)
        else:
            words.append([place])
    rng.shuffle(words)
    chosen, wanted = np.zeros(len(ids), dtype=bool), max(1, round(rate * sum(map(len, words))))
    for word in words:
        if chosen.sum() >= wanted:
            break
        if chosen.sum() + len(word) <= wanted:
            chosen[word] = True
    return chosen


@pytest.mark.parametrize("long", [1, 4, 8])
def test_whole_words_are_chosen_as_the_papers_code_chooses_them(long: int):
    """Rows in which every other word has `long` pieces: as many targets, and as many in long words."""
    ids = rows(400, 102)
    place = np.arange(100) % (long + 1)
    ids[:, 1:-1] = np.where(place < 2, 5 + np.arange(100) % 60, 70)  # w w ##s ##s ... w w ##s ##s ...
    rng = np.random.default_rng(0)
    expected = np.stack([berts(row, 0.15, rng) for row in ids])
    masked = mask_tokens(ids, uniforms(ids), VOCABULARY, 0.15, whole_words=True)
    chosen = np.zeros(ids.shape, dtype=bool)
    chosen.reshape(-1)[masked.positions] = True
    assert chosen.sum(axis=1).max() == 15
    assert chosen.sum(axis=1).mean() == pytest.approx(expected.sum(axis=1).mean(), abs=0.05)
    single = np.append(np.append(False, (place == 0)), False)
    assert chosen[:, single].mean() == pytest.approx(expected[:, single].mean(), abs=0.02)
    assert chosen[:, ~single].mean() == pytest.approx(expected[:, ~single].mean(), abs=0.02)


def test_a_word_longer_than_the_share_is_skipped_unless_it_is_all_there_is():
    ids = np.array([[2, 5, *[70] * 9, 6, 7, 8, 3], [2, 5, *[70] * 12, 3]])
    for seed in range(20):
        masked = mask_tokens(ids, uniforms(ids, seed), VOCABULARY, 0.15, whole_words=True)
        first, second = (masked.positions[masked.positions // 15 == row] % 15 for row in (0, 1))
        assert len(first) == 2
        assert set(first.tolist()) <= {11, 12, 13}
        assert second.tolist() == list(range(1, 14))
