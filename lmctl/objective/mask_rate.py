"""The masking rate of masked language modelling: a share of the tokens, or a schedule over the budget.

Many masks give much to learn from at first, and leave little to learn it by later: a rate of 0.3 that falls to 0.15
learns faster than either (Ankner et al. 2024, "Dynamic masking rate schedules for MLM pretraining"; on rates above 0.15
Wettig et al. 2023, "Should you mask 15 % in masked language modeling?").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lmctl.core.errors import ConfigError
from lmctl.core.piecewise import check_curve, curve_at, points_of

if TYPE_CHECKING:
    from lmctl.plan import Plan


def check_rate(rate: Any) -> None:
    """ValueError unless `rate` is a share of the tokens, or points `[[progress, share], ...]` over the budget."""
    check_curve("mask_rate", rate, "linear")
    if not all(0 < share < 1 for _, share in points_of("mask_rate", rate)):
        raise ValueError(f"mask_rate is a share of the tokens between 0 and 1, got {rate}")


def is_schedule(rate: Any) -> bool:
    """Whether the share changes over the budget."""
    return len({share for _, share in points_of("mask_rate", rate)}) > 1


def rate_at(rate: Any, progress: float) -> float:
    """The share when `progress` of the budget is spent."""
    return curve_at(points_of("mask_rate", rate), progress, "linear")


def check_cached(plan: Plan, rate: Any) -> Iterator[ConfigError]:
    """ConfigError where a teacher's answers are kept by row, whose masks a schedule makes a matter of time as well."""
    if is_schedule(rate) and plan.teacher_cache != "off":
        yield ConfigError(
            f"teacher_cache={plan.teacher_cache}: answers are kept by row, and with mask_rate={rate} a row's masks "
            "depend on when it is seen",
            "teacher_cache=off, or one mask_rate",
        )
