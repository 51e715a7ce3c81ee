"""Learning rates over the budget, at points that can be worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmctl.config.schema import STEPS, Budget
from lmctl.schedule.shapes import Constant, Cosine, Linear, WarmupStableDecay

POINTS = [
    (Constant(0.1), {0.0: 0.0, 0.05: 0.5, 0.1: 1.0, 0.5: 1.0, 1.0: 1.0}),
    (Constant(0.0), {0.0: 1.0, 1.0: 1.0}),
    (Linear(0.2), {0.1: 0.5, 0.2: 1.0, 0.6: 0.5, 1.0: 0.0}),
    (Linear(0.0, floor=0.1), {0.0: 1.0, 0.5: 0.55, 1.0: 0.1}),
    (Cosine(0.2), {0.2: 1.0, 0.4: (1 + 2**-0.5) / 2, 0.6: 0.5, 1.0: 0.0}),
    (Cosine(0.0, floor=0.5), {0.0: 1.0, 0.5: 0.75, 1.0: 0.5}),
    (WarmupStableDecay(0.1, decay=0.2), {0.05: 0.5, 0.1: 1.0, 0.5: 1.0, 0.8: 1.0, 0.9: 0.5, 1.0: 0.0}),
    (WarmupStableDecay(0.5, floor=0.2, decay=0.5), {0.5: 1.0, 0.75: 0.6, 1.0: 0.2}),
]


@pytest.mark.parametrize(("schedule", "points"), POINTS, ids=[repr(s) for s, _ in POINTS])
def test_known_points(schedule, points):
    for progress, factor in points.items():
        assert schedule.factor(progress) == pytest.approx(factor)


@given(st.sampled_from([Constant, Linear, Cosine, WarmupStableDecay]), st.floats(0, 0.7), st.floats(0, 1))
def test_between_nothing_and_the_peak(kind, warmup, progress):
    assert 0 <= kind(warmup).factor(progress) <= 1 + 1e-12


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(1.0), "warmup is a share"),
        (lambda: Linear(0.1, floor=2), "floor is a share"),
        (lambda: WarmupStableDecay(0.9, decay=0.2), "decay is a share"),
    ],
)
def test_shares_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("budget", "steps"),
    [(Budget(), STEPS), (Budget(steps=7), 7), (Budget(minutes=2.0), None), (Budget(steps=7, minutes=2.0), 7)],
)
def test_the_default_budget_gives_way_to_any_other(budget, steps):
    assert budget.most_steps == steps
