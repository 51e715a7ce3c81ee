"""Uncompressed gradient averaging over a `Wire`."""

from __future__ import annotations

import torch
from torch import nn

from lmctl.compression.base import Exchange
from lmctl.compression.traffic import all_reduce_bytes
from lmctl.compression.wire import Wire


class Averaged(Exchange):
    """All-reduce mean of the gradients of all workers, in their own dtype."""

    def __init__(self, learner: nn.Module, wire: Wire) -> None:
        self.parameters, self.wire = [p for p in learner.parameters() if p.requires_grad], wire
        self.dense = all_reduce_bytes(sum(4 * p.numel() for p in self.parameters), wire.world)

    def reduce(self, scale: float, step: int) -> None:
        before = self.wire.sent
        for parameter in self.parameters:
            gradient = parameter.grad
            mine = torch.zeros(parameter.shape, dtype=parameter.dtype) if gradient is None else gradient.detach()
            mean = self.wire.all_reduce(mine.reshape(-1).to(parameter.device)) / self.wire.world
            parameter.grad = mean.view(parameter.shape)
        self.sent = self.wire.sent - before
