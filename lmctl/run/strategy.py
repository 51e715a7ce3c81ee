"""How the workers of a run share its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lmctl.compression.base import Exchange, GradCompressor
from lmctl.compression.wire import Wire
from lmctl.run.learner import Learner, Losses, Pass, Share
from lmctl.run.processes import Processes


class Strategy:
    """Every worker has all weights; gradients are the mean over the workers of theirs."""

    exchange: Exchange
    """What carries the gradients."""

    def __init__(self, processes: Processes, wire: Wire) -> None:
        self.processes, self.wire = processes, wire

    def prepare(self, learner: Learner, compression: GradCompressor, clip_norm: float | None) -> None:
        """Wrap `learner`, which is on its device, before an optimiser is made of its parameters."""
        self.learner = learner
        self.exchange = compression.exchange(learner, self.wire, clip_norm)
        self.wrapped: nn.Module = self.processes.wrap(learner)
        self.exchange.attach(self.wrapped)

    @property
    def workers(self) -> int:
        return self.exchange.workers

    @property
    def places(self) -> Sequence[int]:
        """The numbers, below `workers`, of those that this process is."""
        return self.exchange.places

    def forward(self, passes: Sequence[Pass], share: Share, agree: float = 0.0) -> Losses:
        losses: Losses = self.wrapped(passes, share, agree)
        return losses

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        """Around one forward and backward pass: gradients stay in this process unless it is the `last` of the step."""
        return nullcontext() if last else self.processes.unsynchronised(self.wrapped)

    def collect(self, scale: float) -> None:
        """The next of this process's workers has its gradients of the step, each multiplied by the loss `scale`."""
        self.exchange.collect(scale)

    def reduce_gradients(self, step: int) -> None:
        """Make the gradients those of all workers, where the backward pass has not. `step` counts those taken."""
        self.exchange.finish(step)

    def clip_grad_norm(self, clip_norm: float | None, waits: bool) -> Tensor:
        """The norm of all gradients, before they are scaled down to `clip_norm`. They stay as they are where it is not
        finite, so that the tensor that overflowed can be told from the others; looking at it waits for a GPU, so there
        it is done only if whoever takes the step `waits` anyway."""
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.learner.parameters() if p.grad is not None])
        if (norm.device.type == "cpu" or waits) and not torch.isfinite(norm):
            return norm
        if clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.learner.parameters(), clip_norm, norm)
        return norm
