"""No average: the newest weights are validated and exported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmctl.average.base import Average
from lmctl.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from lmctl.average.weights import CurrentWeights
    from lmctl.plan import Plan


@dataclass(frozen=True)
class NoAverage(Average):
    """The newest weights as they are."""

    def newest(self, averaged: int) -> float:
        return 1.0

    def weights(self, network: nn.Module) -> CurrentWeights:
        from lmctl.average.weights import CurrentWeights

        return CurrentWeights(network)

    def check(self, plan: Plan) -> Iterator[ConfigError]:
        yield from ()
