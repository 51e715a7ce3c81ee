"""Gradients as they are: DDP averages them while the backward pass runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmctl.compression.base import GradCompressor
from lmctl.compression.traffic import all_reduce_bytes

if TYPE_CHECKING:
    from torch import nn

    from lmctl.compression.base import Exchange, Wire
    from lmctl.optim.base import OptimSpec


@dataclass(frozen=True)
class Uncompressed(GradCompressor):
    """Gradients averaged by DDP; with one process there is nothing to average."""

    def workers(self, world: int, optim: OptimSpec, clip_norm: float | None) -> int:
        return world

    def exchange(self, learner: nn.Module, wire: Wire, clip_norm: float | None) -> Exchange:
        return ByDdp(learner, wire)


class ByDdp:
    """The exchange that DDP makes by itself, of gradients in the type that they come in."""

    def __init__(self, learner: nn.Module, wire: Wire) -> None:
        self.workers, self.places = wire.world, wire.places
        learns = [p for p in learner.parameters() if p.requires_grad]
        own, full = sum(p.numel() * p.element_size() for p in learns), sum(4 * p.numel() for p in learns)
        self.sent, self.dense = (all_reduce_bytes(size, wire.world) if wire.world > 1 else 0 for size in (own, full))

    def attach(self, wrapped: nn.Module) -> None:
        """DDP needs no help."""

    def collect(self, scale: float) -> None:
        """DDP has them."""

    def finish(self, step: int) -> None:
        """DDP has done it."""

    def words(self) -> list[str]:
        return []

    def figures(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """There is none."""
