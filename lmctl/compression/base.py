"""The contract of the group `compression`: in what form gradients cross the network."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Self

from lmctl.core.component import Component
from lmctl.optim.base import OptimSpec

if TYPE_CHECKING:
    from torch import nn

    from lmctl.compression.wire import Wire
    from lmctl.core.steps import Exchange


class GradCompressor(Component):
    """Group `compression`: in what form gradients cross the network."""

    @abstractmethod
    def workers(self, world: int, optim: OptimSpec, clip_norm: float | None) -> int:
        """How many workers share the rows of a step in `world` processes; raises a `ConfigError` if a run like that,
        with this optimiser and clipping, cannot use it."""

    def remarks(self, optim: OptimSpec) -> list[str]:
        """What the user should know beforehand."""
        return []

    def alone(self) -> Self:
        """The same for a lone worker, which costs what it costs but the network."""
        return self

    def over(self, wire: Wire, learner: nn.Module, clip_norm: float | None) -> Exchange | None:
        """The exchange of the gradients of `learner` over `wire`; None: it sends nothing by itself (DDP averages)."""
        return None

    @abstractmethod
    def exchange(self, learner: nn.Module, rank: int, world: int, clip_norm: float | None) -> Exchange:
        """The exchange of the gradients of `learner`, in process `rank` of `world`."""
