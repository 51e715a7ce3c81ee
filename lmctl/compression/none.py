"""Gradients as they are: they are averaged in the format that they come in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmctl.compression.base import GradCompressor

if TYPE_CHECKING:
    from torch import nn

    from lmctl.compression.wire import Wire


@dataclass(frozen=True)
class Uncompressed(GradCompressor):
    """Gradients are averaged; with one worker there is nothing to average."""

    @property
    def sends(self) -> bool:
        return False

    def exchange(self, learner: nn.Module, wire: Wire, clip_norm: float | None) -> None:
        return None
