"""From gradients to a step: the groups `optim`, `schedule` and `compression`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import nn


@runtime_checkable
class OptimSpec(Protocol):
    """Group `optim`: the rule that turns gradients into updates."""

    lr: float

    def optimiser(self, network: nn.Module, device: torch.device) -> torch.optim.Optimizer: ...


@runtime_checkable
class Schedule(Protocol):
    """Group `schedule`: the learning rate over the budget."""

    def factor(self, progress: float) -> float:
        """What the peak learning rate is multiplied by when `progress` (above 0, up to 1) of the budget is spent."""
        ...


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


@runtime_checkable
class GradCompressor(Protocol):
    """Group `compression`: in what form gradients cross the network."""

    def workers(self, world: int, optim: OptimSpec, clip_norm: float | None) -> int:
        """How many workers share the rows of a step in `world` processes; raises a `ConfigError` if a run like that,
        with this optimiser and clipping, cannot use it."""
        ...

    def remarks(self, optim: OptimSpec) -> list[str]:
        """What the user should know beforehand."""
        ...

    def exchange(self, learner: nn.Module, rank: int, world: int, clip_norm: float | None) -> Exchange:
        """The exchange of the gradients of `learner`, in process `rank` of `world`."""
        ...
