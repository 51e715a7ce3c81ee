"""A run's budget in steps and tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lmctl.cost.known_data import Known
from lmctl.cost.rows import Sample
from lmctl.objective.base import Examples
from lmctl.plan import Plan


@dataclass(frozen=True)
class Spending:
    """The budget in steps and tokens; None where they depend on the data or the clock."""

    rows_per_step: float
    tokens_per_step: float
    steps: int | None
    tokens: int | None
    limit: str
    """The limit that ends the run."""


def spending(
    plan: Plan,
    known: Known,
    examples: Mapping[str, Examples],
    samples: Mapping[str, Sample],
    seconds_per_step: float | None,
) -> Spending:
    """The limit of the budget that is reached first; limits that depend on the data, or the speed, are ignored unless
    these are known."""
    budget = plan.budget
    rows = sum(sample.rows_per_step for sample in samples.values())
    tokens = sum(sample.rows_per_step * sample.tokens_per_row for sample in samples.values())
    limits: dict[str, float] = {}
    if budget.most_steps:
        limits["budget.steps"] = budget.most_steps
    if budget.tokens:
        limits["budget.tokens"] = budget.tokens / tokens
    if budget.epochs and known.real == set(examples):
        limits["budget.epochs"] = budget.epochs * sum(map(len, examples.values())) / rows
    if budget.minutes and seconds_per_step:
        limits["budget.minutes"] = 60 * budget.minutes / seconds_per_step
    if not limits:
        name = "budget.epochs" if budget.epochs else "budget.minutes"
        return Spending(rows, tokens, None, None, name)
    limit, exact = min(limits.items(), key=lambda item: item[1])
    steps = math.ceil(exact - 1e-9)  # the last step is not cut short
    return Spending(rows, tokens, steps, round(steps * tokens), limit)
