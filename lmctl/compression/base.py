"""The contract of the group `compression`: in what form gradients cross the network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from lmctl.core.component import Component
from lmctl.optim.base import OptimSpec

if TYPE_CHECKING:
    from torch import nn

    from lmctl.compression.wire import Wire


class Traffic:
    """What one worker sends of its gradients, and keeps for later; the defaults are those of one that sends nothing."""

    sent: int = 0
    """Bytes of gradients that this worker sent to the others in the last step."""
    dense: int = 0
    """What it would have sent in float32, uncompressed."""

    def describe(self) -> list[str]:
        """What is sent instead of gradients, for people; nothing where they go as they are."""
        return []

    def figures(self) -> dict[str, float]:
        """What the record says of the last step, besides the bytes."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What this worker keeps from step to step."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        return


class Exchange(Traffic, ABC):
    """The gradients of one worker, on their way to all of them after its last backward pass of a step."""

    @abstractmethod
    def reduce(self, scale: float, step: int) -> None:
        """Leave the mean over all workers in every parameter's `grad`; gradients are multiplied by the loss `scale`,
        before and after. `step` counts the steps taken before. A gradient that is not finite in any worker is so
        afterwards in all of them."""


class GradCompressor(Component):
    """Group `compression`: in what form gradients cross the network."""

    @property
    def sends(self) -> bool:
        """Whether it sends gradients in a form of its own."""
        return True

    @property
    def simulate_workers(self) -> int | None:
        """Workers that one process is to play; None: as the runner says (`Plan.simulated_workers` knows both)."""
        return None

    def check_use(self, workers: int | None, optim: OptimSpec, clip_norm: float | None) -> None:
        """ConfigError if a run of so many workers (None: it has one, which plays nobody else) cannot use it with this
        optimiser and clipping."""
        return

    def remarks(self, optim: OptimSpec) -> list[str]:
        """What the user should know beforehand."""
        return []

    @abstractmethod
    def exchange(self, learner: nn.Module, wire: Wire, clip_norm: float | None) -> Exchange | None:
        """The exchange of the gradients of `learner` over `wire`; None: they go as they are."""
