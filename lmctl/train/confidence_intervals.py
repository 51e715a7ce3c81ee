"""How sure the figures of a validation are, and what a guess would have reached."""

from __future__ import annotations

import math

from lmctl.objective.base import Objective

NORMAL_95 = 1.959964
"""95 % of a normal distribution lie within so many standard deviations."""
SMALL = 100
"""Held-out rows below which single rows decide the figures."""


def wilson(share: float, count: float) -> tuple[float, float]:
    """The 95 % interval of a probability that was seen as `share` of `count` independent trials (Wilson 1927)."""
    z = NORMAL_95
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def about_mean(mean: float, error: float, groups: int) -> tuple[float, float]:
    """The 95 % interval of a mean whose standard `error` was seen from so many `groups` of rows (Student 1908)."""
    from scipy.special import stdtrit  # what scipy.stats.t.ppf calls; scipy.stats takes half a second to import

    half = float(stdtrit(groups - 1, 0.975)) * error
    return mean - half, mean + half


def guess(objective: Objective, term: str) -> str:
    """In words, what the baseline of a term is: the best answer of somebody who does not look at the text."""
    if objective.label_kind == "number":
        return "always the mean"
    if objective.label_kind is not None:
        return "always the most frequent class" if objective.label_kind == "class" else "label frequencies alone"
    return "word frequencies alone" if term in ("mlm", "lm") else "chance"
