"""Base class of the group `average`: an average of the weights over the steps of a run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lmctl.core.component import Component
from lmctl.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from lmctl.average.weights import CurrentWeights
    from lmctl.plan import Plan


class Average(Component):
    """Group `average`: weights averaged over the steps. Training goes on from the newest weights; the average is what
    is validated, kept as the best and exported."""

    @property
    def begins(self) -> float:
        """Share of the budget before which the average is the newest weights."""
        return 0.0

    @abstractmethod
    def newest(self, averaged: int) -> float:
        """What the newest weights count for in an average that has had `averaged` (0, 1, ...) others, above 0, at most
        1."""

    def weights(self, network: nn.Module) -> CurrentWeights:
        """The average over the trainable weights of `network`, which it follows from now on."""
        from lmctl.average.weights import AveragedWeights

        return AveragedWeights(network, self)

    def check(self, plan: Plan) -> Iterator[ConfigError]:
        stored = plan.precision.storage
        if stored == "bf16" or (stored is not None and not plan.model.lora_rank):
            yield ConfigError(
                f"average: {type(self).__name__} adds up small differences, and weights stored in {stored} have none",
                "average=none, or nearest: precision=bf16 (products in bf16, weights in float32)",
            )
