"""Share of a training budget that is spent, whichever of its limits is nearest."""

from __future__ import annotations

from typing import NamedTuple

from lmctl.config.schema import Budget


class Spent(NamedTuple):
    """Amounts of a budget: steps, tokens and rows."""

    steps: float = 0
    tokens: float = 0
    """Without padding, of all tasks and processes."""
    rows: float = 0


class BudgetShare:
    """The limits of a budget."""

    def __init__(self, budget: Budget, epoch: int) -> None:
        """`epoch`: rows of one pass over the data."""
        self.limits = Spent(budget.most_steps or 0, budget.tokens or 0, (budget.epochs or 0) * epoch)
        """By unit; 0: no limit."""
        self.minutes = budget.minutes

    def spent(self, before: Spent, coming: Spent, part: float, seconds: float) -> float:
        """Share spent after `before`, `part` of `coming` and `seconds` of training; 1 or more: nothing is left."""
        amounts = zip(before, coming, self.limits, strict=True)
        shares = [(done + part * more) / limit for done, more, limit in amounts if limit]
        return max([*shares, seconds / (60 * self.minutes)] if self.minutes else shares)
