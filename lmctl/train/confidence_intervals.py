"""Confidence intervals of validation metrics, and the name of the baseline they are compared with."""

from __future__ import annotations

import math

from lmctl.objective.base import Objective

NORMAL_95 = 1.959964
"""Two-sided 95 % quantile of the normal distribution, in standard deviations."""
SMALL = 100
"""Number of held-out rows below which single rows decide the metrics."""


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson 95 % interval of a proportion `share` in `count` independent trials (Wilson 1927)."""
    z = NORMAL_95
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def about_mean(mean: float, error: float, groups: int) -> tuple[float, float]:
    """95 % t-interval of a mean with standard `error`, estimated from `groups` of rows (Student 1908)."""
    from scipy.special import stdtrit  # what scipy.stats.t.ppf calls; scipy.stats takes half a second to import

    half = float(stdtrit(groups - 1, 0.975)) * error
    return mean - half, mean + half


def guess(objective: Objective, term: str) -> str:
    """Name of a term's baseline, which does not use the text, in words."""
    if objective.label_kind == "number":
        return "always the mean"
    if objective.label_kind is not None:
        return "always the most frequent class" if objective.label_kind == "class" else "label frequencies alone"
    return "word frequencies alone" if term in ("mlm", "lm") else "chance"
