"""BERT's masking: how many, what becomes of them, whole words, and independence of the batch around a row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import vocabulary

from lmctl.core.draws import Draws
from lmctl.objective.masking import mask_tokens

VOCABULARY = vocabulary()


def rows(count: int, length: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, VOCABULARY.size, (count, length))
    ids[:, 0], ids[:, -1] = VOCABULARY.cls, VOCABULARY.sep
    return ids


def uniforms(ids: np.ndarray, seed: int = 0) -> np.ndarray:
    draws = Draws(seed, "test")
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


def test_whole_words_do_not_overshoot_the_share():
    ids = rows(50, 102)
    masked = mask_tokens(ids, uniforms(ids), VOCABULARY, 0.15, whole_words=True)
    per_row = np.bincount(masked.positions // 102, minlength=50)
    assert per_row.max() <= 15
    assert per_row.mean() > 14
