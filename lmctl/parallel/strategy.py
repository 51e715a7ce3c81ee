"""How the workers of a run share one learner's gradients: each has all weights, and gradients are the mean over workers
of theirs. So a worker divides its losses by the mean number of targets per worker.

`Single` has no peers; `Ddp` has torch average gradients while the backward pass runs; `Exchanged` sends them when it is
over, in whatever form the group `compression` says, and speaks through a `Wire` only, so that its workers can be
threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from lmctl.compression.averaged import Averaged
from lmctl.compression.base import Exchange, GradCompressor, Traffic
from lmctl.compression.traffic import all_reduce_bytes
from lmctl.core.errors import LmctlError
from lmctl.parallel.processes import Processes
from lmctl.train.learner import Learner


class Strategy(Traffic, ABC):
    """How workers share gradients; the defaults are those of one worker."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes

    @abstractmethod
    def prepare(self, learner: Learner) -> None:
        """Take charge of `learner`, which is on its device, before an optimiser is made of its parameters. LmctlError
        if workers do not begin with the same weights."""

    @property
    @abstractmethod
    def learner(self) -> Learner: ...

    @property
    def module(self) -> nn.Module:
        """What to call for a forward pass: the learner, or what wraps it."""
        return self.learner

    @property
    def workers(self) -> int:
        return self.processes.world

    def mean_counts(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Targets per worker, from those of all workers."""
        return {name: count / self.workers for name, count in counts.items()}

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        """Around one forward and backward pass: gradients stay with this worker unless it is the `last` of the step."""
        return nullcontext()

    def reduce_gradients(self, scale: float, step: int) -> None:
        """Make the gradients, multiplied by the loss `scale`, those of all workers, where the backward pass has not.
        `step` counts the steps taken before."""
        return

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

    def after_step(self) -> None:
        """The optimiser has stepped."""
        return


class Single(Strategy):
    """One worker, or what several have in common that have all weights."""

    def prepare(self, learner: Learner) -> None:
        self._learner = learner
        if self.workers > 1:
            mine = checksum(learner)
            if any(self.processes.sum([mine != self.processes.agree(mine)])):
                raise LmctlError("the processes of this run did not begin with the same weights")

    @property
    def learner(self) -> Learner:
        return self._learner


@dataclass
class Wrapping(DistributedDataParallelKwargs):
    """With `init_sync` False DDP does not send the first process's weights to the others. All processes make them from
    the same seed or read them from the same files; and there may be parameters that live elsewhere (stored in int8),
    which cannot be sent."""

    init_sync: bool = True


class Ddp(Single):
    """Gradients are averaged by torch's DistributedDataParallel, in the last backward pass of a step."""

    def prepare(self, learner: Learner) -> None:
        super().prepare(learner)
        accelerator = self.processes.accelerator
        # Set, because as an argument it would have to be of the very class that lacks `init_sync`.
        accelerator.ddp_handler = Wrapping(gradient_as_bucket_view=True, broadcast_buffers=False, init_sync=False)
        self.wrapped: nn.Module = accelerator.prepare(learner)
        learns = [p for p in learner.parameters() if p.requires_grad]
        self.sent = all_reduce_bytes(sum(p.numel() * p.element_size() for p in learns), self.workers)
        self.dense = all_reduce_bytes(sum(4 * p.numel() for p in learns), self.workers)

    @property
    def module(self) -> nn.Module:
        return self.wrapped

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        # DDP decides in the forward pass, so both passes are inside.
        return nullcontext() if last else self.processes.accelerator.no_sync(self.wrapped)


class Exchanged(Single):
    """Gradients are exchanged after the last backward pass of a step, over a wire."""

    exchange: Exchange

    def __init__(self, processes: Processes, compression: GradCompressor, clip_norm: float | None) -> None:
        super().__init__(processes)
        self.compression, self.clip_norm, self.wire = compression, clip_norm, processes.wire()

    def prepare(self, learner: Learner) -> None:
        super().prepare(learner)
        exchange = self.compression.exchange(learner, self.wire, self.clip_norm)
        self.exchange = Averaged(learner, self.wire) if exchange is None else exchange
        self.dense = self.exchange.dense

    def reduce_gradients(self, scale: float, step: int) -> None:
        self.exchange.reduce(scale, step)
        self.sent = self.exchange.sent

    def describe(self) -> list[str]:
        lines = self.exchange.describe()
        if lines and self.processes.simulated:
            lines.append(
                f"{self.workers} workers simulated in one process; the bytes are those that one of them would have sent"
            )
        return lines

    def figures(self) -> dict[str, float]:
        return self.exchange.figures()

    def state_dict(self) -> dict[str, Any]:
        return self.exchange.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.exchange.load_state_dict(state)


def strategy_of(processes: Processes, compression: GradCompressor, clip_norm: float | None) -> Strategy:
    """How a run with these processes and this compression shares gradients."""
    if compression.sends or processes.simulated:
        return Exchanged(processes, compression, clip_norm)
    return Ddp(processes) if processes.world > 1 else Single(processes)


def checksum(module: nn.Module) -> list[int]:
    """Of each tensor of its state, its words added up as integers: exact, in whatever order a device adds."""
    words = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    state = [tensor for tensor in module.state_dict().values() if tensor.numel()]
    return [int(t.contiguous().view(words[t.element_size()]).sum(dtype=torch.int64)) for t in state]
