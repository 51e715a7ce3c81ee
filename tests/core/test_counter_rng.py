"""Random numbers from a counter: a row's numbers depend on nothing but seed, purpose, epoch and row."""

from __future__ import annotations

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
