"""The gradients of a run on their way from worker to worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn


class Exchange(Protocol):
    """The gradients of one run, on their way from every worker to all of them. A worker is a process, or one of
    several that a single process plays."""

    workers: int
    places: Sequence[int]
    """The numbers, below `workers`, of those that this process is."""
    sent: int
    """Bytes of gradients that one worker sent to the others in the last step."""
    dense: int
    """What it would have sent in float32, uncompressed."""

    def attach(self, wrapped: nn.Module) -> None:
        """Take charge of what `wrapped`, the learner as its processes run it, does with its gradients."""
        ...

    def collect(self, scale: float) -> None:
        """The next of this process's workers has its gradients of the step, each multiplied by the loss `scale`."""
        ...

    def finish(self, step: int) -> None:
        """All workers have theirs: leave the mean in every parameter's `grad`, still multiplied by the scale. `step`
        counts the steps taken before. A gradient that is not finite in any worker is so afterwards in all of them."""
        ...

    def words(self) -> list[str]:
        """What is sent, for people; nothing where gradients go as they are."""
        ...

    def figures(self) -> dict[str, float]:
        """What the record says of the last step, besides the bytes."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What this process keeps from step to step."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
