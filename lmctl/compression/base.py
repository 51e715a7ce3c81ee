"""Base classes of the group `compression`: gradient compressors, and the exchange of one step's gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lmctl.core.component import Component
from lmctl.core.errors import ConfigError
from lmctl.optim.base import OptimSpec

if TYPE_CHECKING:
    from torch import nn

    from lmctl.compression.reduce_scatter import ShardCompression
    from lmctl.compression.wire import Wire
    from lmctl.plan import Plan


class Traffic:
    """Bytes that one worker sends for its gradients, and its state between steps; the defaults send nothing."""

    sent: int = 0
    """Bytes of gradients that this worker sent to the others in the last step."""
    dense: int = 0
    """Bytes that it would have sent uncompressed, in float32."""

    def describe(self) -> list[str]:
        """Lines for people: what is sent instead of plain gradients; none if uncompressed."""
        return []

    def figures(self) -> dict[str, float]:
        """Metrics of the last step, besides the bytes."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """State that this worker keeps between steps (residuals, momentum)."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        return


class Exchange(Traffic, ABC):
    """Exchange of one worker's gradients with all others, after the last backward pass of a step."""

    @abstractmethod
    def reduce(self, scale: float, step: int) -> None:
        """Replace every parameter's `grad` by the mean over all workers. Gradients are multiplied by the loss `scale`,
        before and after. `step` counts the steps taken before. If a gradient is not finite in one worker, it is not
        finite in any worker afterwards."""


class GradCompressor(Component):
    """Group `compression`: gradient compression."""

    @property
    def sends(self) -> bool:
        """Whether gradients are sent compressed, by an `Exchange` of its own."""
        return True

    @property
    def simulate_workers(self) -> int | None:
        """Number of simulated workers in one process; None: as `runner` says (`Plan.simulated_workers` knows both)."""
        return None

    def check_use(self, workers: int | None, optim: OptimSpec, clip_norm: float | None) -> None:
        """ConfigError if it does not work with this number of workers (None: one real worker, none simulated),
        optimiser and gradient clipping."""
        return

    def check_differences(self) -> Iterator[ConfigError]:
        """Settings that are for gradients only, where differences of weights are sent (`runner=diloco`)."""
        yield from ()

    def check_shards(self, plan: Plan) -> Iterator[ConfigError]:
        """Errors if it cannot average gradients in shards (`runner=fsdp`). By default it takes whole ones."""
        yield not_in_shards("compression", "takes whole gradients, and no process has any", "compression=int8")

    def in_shards(self, learner: nn.Module) -> ShardCompression | None:
        """How the gradients of `learner` are averaged in shards; None: they are not compressed."""
        return None

    def remarks(self, optim: OptimSpec) -> list[str]:
        """Warnings for the user before the run starts."""
        return []

    @abstractmethod
    def exchange(self, learner: nn.Module, wire: Wire, clip_norm: float | None) -> Exchange | None:
        """The exchange of the gradients of `learner` over `wire`; None: gradients are not compressed."""


def not_in_shards(what: str, why: str, nearest: str) -> ConfigError:
    """The error for a setting that does not work with sharded gradients."""
    return ConfigError(f"runner=fsdp: {what} {why}", f"nearest: {nearest}, or runner=ddp")
