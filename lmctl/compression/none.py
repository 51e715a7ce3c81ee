"""`compression=none`: gradients are averaged uncompressed, in their own dtype."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmctl.compression.base import GradCompressor

if TYPE_CHECKING:
    from torch import nn

    from lmctl.compression.wire import Wire
    from lmctl.core.errors import ConfigError
    from lmctl.plan import Plan


@dataclass(frozen=True)
class Uncompressed(GradCompressor):
    """Plain gradient averaging (with one worker, no communication)."""

    @property
    def sends(self) -> bool:
        return False

    def check_shards(self, plan: Plan) -> Iterator[ConfigError]:
        yield from ()

    def exchange(self, learner: nn.Module, wire: Wire, clip_norm: float | None) -> None:
        return None
