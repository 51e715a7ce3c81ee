"""Confidence intervals of validation metrics, and the words for better or not better than the baseline."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, sem, t
from walked import alone

from lmctl.objective.base import LOSS, Metric
from lmctl.train import final_figures
from lmctl.train.confidence_intervals import wilson
from lmctl.train.validation import MetricSums


@pytest.mark.parametrize(("right", "count"), [(0, 5), (15, 18), (202, 299), (40, 40)])
def test_wilsons_interval(right, count):
    known = binomtest(right, count).proportion_ci(method="wilson")
    assert wilson(right / count, count) == pytest.approx((known.low, known.high), abs=1e-6)


def test_the_interval_of_a_mean_over_groups():
    """Groups of equal size: the standard error of the mean of their means."""
    values = np.random.default_rng(0).normal(5, 1, size=(20, 8))
    sums = MetricSums()
    for group in values:
        sums.add({"mlm": {LOSS: Metric(group.sum(), 8, higher_is_better=False)}})
    half = sem(values.mean(axis=1)) * t.ppf(0.975, 19)
    low, high = sums.figures(alone())["mlm"].interval(160) or (math.nan, math.nan)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half))


def said(**changes) -> str:
    base = {
        "valid": {"loss": 1.0, "t/label": 0.6, "t/label_accuracy": 0.833},
        "baseline": {"loss": 0.9, "t/label": 0.5, "t/label_accuracy": 0.833},
        "baseline_is": {"t/label": "always the most frequent class"},
        "valid_metrics": {
            "t/label": {"term": "t/label", "higher_is_better": False, "share": False},
            "t/label_accuracy": {"term": "t/label", "higher_is_better": True, "share": True},
        },
        "valid_rows": {"t": 18},
        "valid_targets": {"t/label": 18, "t/label_accuracy": 18},
        "valid_interval": {"t/label_accuracy": [0.6, 0.94]},
    }
    return "\n".join(final_figures.lines(base | changes))


def test_success_and_failure_look_different():
    bad = said()
    assert "NOT better than always the most frequent class: 83.3%" in bad
    assert "NOT better than always the most frequent class: 0.500" in bad
    assert "only 18 held-out rows of t" in bad
    unsure = said(valid={"loss": 1.0, "t/label_accuracy": 0.85})
    assert "not clearly better than always the most frequent class: 83.3%" in unsure
    good = said(valid={"loss": 1.0, "t/label_accuracy": 0.97}, valid_interval={}, valid_rows={"t": 400})
    assert "better than always the most frequent class: 83.3%" in good
    assert "held-out rows of t" not in good
