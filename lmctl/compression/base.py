"""The contract of the group `compression`: in what form gradients cross the network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

from lmctl.core.component import Component
from lmctl.optim.base import OptimSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class Wire(Protocol):
    """The connection of the workers that this process is (L of them) with all (W). Every call blocks and is made by all
    workers in the same order."""

    world: int
    """W."""
    places: Sequence[int]
    """The numbers, below W, of those that this process is."""

    @property
    def simulated(self) -> bool:
        """Whether this process plays all workers."""
        ...

    @property
    def sent(self) -> int:
        """Bytes that one worker has sent so far."""
        ...

    def total(self, vectors: list[Tensor], count: bool = True) -> Tensor:
        """The sum over all workers of one vector each: L tensors float32 [n] in, [n] out. Unless told not to, counts
        what is sent."""
        ...

    def gather(self, messages: list[Tensor]) -> Tensor:
        """Every worker's message to everyone: L tensors uint8 [b] in, [W, b] out."""
        ...

    def scatter(self, messages: list[Tensor]) -> list[Tensor]:
        """Row w of a worker's messages to worker w: L tensors uint8 [W, b] in, of each worker what was sent to it
        [W, b] out."""
        ...

    def rejoin(self, messages: list[Tensor]) -> Tensor:
        """What each worker made of the part that was scattered to it, to everyone: L x uint8 [b] in, [W, b] out."""
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


class GradCompressor(Component):
    """Group `compression`: in what form gradients cross the network."""

    @property
    def simulate_workers(self) -> int | None:
        """Workers that a single process plays; None: the processes are the workers."""
        return None

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

    @abstractmethod
    def exchange(self, learner: nn.Module, wire: Wire, clip_norm: float | None) -> Exchange:
        """The exchange of the gradients of `learner` over `wire`."""
