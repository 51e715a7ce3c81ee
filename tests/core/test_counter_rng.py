"""Random numbers from a counter: a row's numbers depend on nothing but seed, purpose, epoch and row."""

from __future__ import annotations

import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lmctl.core.counter_rng import CounterRng

SEEDS = st.integers(-(2**40), 2**70)


@given(SEEDS, st.integers(0, 1000), st.integers(0, 2**40), st.integers(1, 50))
def test_a_row_draws_the_same_alone_and_in_company(seed, epoch, row, count):
    draws = CounterRng(seed, "p")
    alone = draws.uniforms(np.array([epoch]), np.array([row]), count)
    company = draws.uniforms(np.array([epoch + 1, epoch, epoch]), np.array([row, row, row + 1]), count)
    assert (alone[0] == company[1]).all()
    assert not (company[0] == company[1]).all()
    assert not (company[1] == company[2]).all()


@given(SEEDS, st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**63 - 1)), max_size=4), st.integers(0, 30))
def test_rows_draw_what_a_generator_of_their_own_draws(seed, places, count):
    """Which is numpy's Philox with the row and the epoch in the upper words of its counter."""
    draws, key = CounterRng(seed, "p"), (seed & (2**64 - 1)) | (zlib.crc32(b"p") << 64)
    epochs, rows = np.array(places, dtype=np.int64).reshape(-1, 2).T
    own = [np.random.Generator(np.random.Philox(key=key, counter=(e << 128) | (r << 64))) for e, r in places]
    expected = [generator.random(count).tolist() for generator in own]
    assert draws.uniforms(epochs, rows, count).tolist() == expected
    # What the row before has left over, such as half a word, is not the next one's.
    own = [np.random.Generator(np.random.Philox(key=key, counter=(e << 128) | (r << 64))) for e, r in places]
    for generator, alone in zip(draws.generators(epochs, rows), own, strict=True):
        for number in range(count % 4 + 1):
            assert generator.integers(1000, dtype=np.int32) == alone.integers(1000, dtype=np.int32), number
        assert generator.permutation(20).tolist() == alone.permutation(20).tolist()
        assert generator.poisson(3.0, 5).tolist() == alone.poisson(3.0, 5).tolist()


def test_seed_and_purpose_make_other_numbers():
    def first(seed: int, purpose: str) -> float:
        return float(CounterRng(seed, purpose).uniforms(np.array([0]), np.array([0]), 1)[0, 0])

    assert len({first(1, "a"), first(2, "a"), first(1, "b"), first(-1, "a")}) == 4


def test_uniform_over_rows_and_positions():
    numbers = CounterRng(3, "u").uniforms(np.zeros(200, dtype=int), np.arange(200), 200)
    assert abs(numbers.mean() - 0.5) < 0.01  # standard error 0.0014
    counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 60  # chi-square with 19 degrees of freedom, far in the tail
    assert abs(np.corrcoef(numbers[:-1].ravel(), numbers[1:].ravel())[0, 1]) < 0.02


@given(SEEDS, st.integers(0, 50), st.integers(1, 200))
def test_permutation_is_one(seed, epoch, size):
    order = CounterRng(seed, "o").permutation(epoch, size)
    assert sorted(order.tolist()) == list(range(size))
