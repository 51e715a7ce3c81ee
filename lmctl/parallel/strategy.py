"""Gradient averaging between data-parallel workers: each has all weights, and gradients are the mean over all workers.
So a worker divides its losses by the mean number of targets per worker.

`Single` has one worker. `DdpStrategy` averages during the backward pass (torch's DistributedDataParallel). `Exchanged`
sends gradients after it, compressed as the group `compression` says, over a `Wire`, so that its workers may be threads.
`lmctl.parallel.diloco` averages weights, every so many steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from lmctl.average.base import Average
from lmctl.average.weights import CurrentWeights
from lmctl.compression.averaged import Averaged
from lmctl.compression.base import Exchange, GradCompressor, Traffic
from lmctl.compression.traffic import all_reduce_bytes
from lmctl.core.errors import LmctlError
from lmctl.core.shards import local
from lmctl.parallel.processes import Processes
from lmctl.precision.base import Precision


class Trainable(nn.Module, ABC):
    """The module that a strategy prepares: a network with its losses."""

    readers: ClassVar[tuple[str, ...]] = ()
    """The methods, besides `forward`, that compute with the parameters."""
    precision: Precision
    device: torch.device

    @abstractmethod
    def units(self) -> list[nn.Module]:
        """The layers that are called as modules in every pass."""


class Strategy(Traffic, ABC):
    """How workers average gradients; the defaults are those of one worker."""

    every: int = 1
    """Steps between two exchanges."""
    replicates: bool = True
    """Whether all workers have the same weights and optimiser states after every step."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes

    def building(self) -> AbstractContextManager[Any]:
        """Context in which a network is built, with random weights or those of files."""
        return nullcontext()

    def share(self, network: Any, precision: Precision) -> None:
        """Move a `network` that does not learn, and was made in `building`, to its device. A collective operation:
        workers that own parts of weights own parts of these, and must then pass through it together."""
        network.to(self.processes.device)

    @property
    def storage(self) -> torch.device:
        """Where weights are between passes, and where the optimiser runs."""
        return self.processes.device

    @abstractmethod
    def prepare(self, learner: Trainable) -> None:
        """Set `learner` and move it to its device, before the optimiser is made from its parameters. LmctlError if
        workers start with different weights."""

    @property
    @abstractmethod
    def learner(self) -> Trainable: ...

    @property
    def module(self) -> nn.Module:
        """The module to call for a forward pass: the learner or its DDP wrapper."""
        return self.learner

    @property
    def workers(self) -> int:
        return self.processes.world

    @property
    def overlaps(self) -> bool:
        """Whether gradients are averaged during the backward pass, so that no worker can repeat its own passes."""
        return False

    @property
    def every_pass(self) -> bool:
        """Whether gradients are averaged in every pass, and not in the last one of a step."""
        return False

    def turns(self, own: int) -> int:
        """Number of micro-batches that this worker takes part in: its `own`, unless workers need one another in every
        pass; then the most of any worker. A collective operation."""
        return own

    @property
    def synchronised(self) -> bool:
        """Whether the weights that are validated are those of the newest step."""
        return True

    def mean_counts(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Mean number of targets per worker, from the totals of all workers."""
        return {name: count / self.workers for name, count in counts.items()}

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        """Context of one forward and backward pass (gradient accumulation): gradients stay local unless it is the
        `last` micro-batch of the step."""
        return nullcontext()

    def reduce_gradients(self, scale: float, step: int) -> None:
        """Average the gradients, multiplied by the loss `scale`, over all workers, unless the backward pass has done
        so. `step` counts the steps taken before."""
        return

    def clip_grad_norm(self, clip_norm: float | None, waits: bool) -> Tensor:
        """Gradient clipping to the norm `clip_norm`; returns the norm before. If the norm is not finite the gradients
        are not changed, so that the tensor that overflowed can still be found. That check synchronises with a GPU, so
        there it runs only if the step `waits` for the GPU anyway."""
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.learner.parameters() if p.grad is not None])
        if (norm.device.type == "cpu" or waits) and not torch.isfinite(norm):
            return norm
        if clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.learner.parameters(), clip_norm, norm)
        return norm

    def placed(self, value: Any) -> Tensor:
        """A tensor of the shape of a weight, as this worker keeps it. `value` has a `shape`, and gives some rows as
        `value[first:last]`."""
        rows: Tensor = value[:]
        return rows

    def after_step(self, taken: bool, last: bool) -> None:
        """End of a step, which was `taken` or skipped, and is the `last` one of the budget or not; gradients are freed.
        Only now `sent` counts all bytes of the step."""
        return

    def weights(self, network: nn.Module, average: Average) -> CurrentWeights:
        """The weights of the prepared `network` that are validated and exported."""
        return average.weights(network)

    def shared_state_dict(self) -> dict[str, Any]:
        """State between steps that is the same in all workers; `state_dict` is this worker's own."""
        return {}

    def load_shared_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `shared_state_dict` returned, or from nothing: the learner has the weights of a checkpoint,
        which are the same in all workers. ValueError for the state of another network."""
        return


class Single(Strategy):
    """One worker; also the base of strategies in which every worker has all weights."""

    def prepare(self, learner: Trainable) -> None:
        self._learner = learner.to(self.processes.device)
        if self.workers > 1:
            check_same(checksum(learner), self.processes)

    @property
    def learner(self) -> Trainable:
        return self._learner


@dataclass
class DdpArguments(DistributedDataParallelKwargs):
    """DDP arguments with `init_sync`: False skips the broadcast of rank 0's weights. All processes have the same
    weights, from the same seed or the same files, and parameters stored in int8 have no memory to broadcast."""

    init_sync: bool = True


class DdpStrategy(Single):
    """DistributedDataParallel: gradients are averaged in the last backward pass of a step."""

    def prepare(self, learner: Trainable) -> None:
        super().prepare(learner)
        accelerator = self.processes.accelerator
        # Assigned afterwards: the constructor accepts only the base class, which lacks `init_sync`.
        accelerator.ddp_handler = DdpArguments(gradient_as_bucket_view=True, broadcast_buffers=False, init_sync=False)
        self.wrapped: nn.Module = accelerator.prepare(learner)
        learns = [p for p in learner.parameters() if p.requires_grad]
        self.sent = all_reduce_bytes(sum(p.numel() * p.element_size() for p in learns), self.workers)
        self.dense = all_reduce_bytes(sum(4 * p.numel() for p in learns), self.workers)

    @property
    def module(self) -> nn.Module:
        return self.wrapped

    @property
    def overlaps(self) -> bool:
        return True

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        # DDP reads no_sync in the forward pass, so both passes must be inside.
        return nullcontext() if last else self.processes.accelerator.no_sync(self.wrapped)


class Exchanged(Single):
    """Gradients are exchanged over a wire after the last backward pass of a step, compressed or not."""

    exchange: Exchange

    def __init__(self, processes: Processes, compression: GradCompressor, clip_norm: float | None) -> None:
        super().__init__(processes)
        self.compression, self.clip_norm, self.wire = compression, clip_norm, processes.wire()

    def prepare(self, learner: Trainable) -> None:
        super().prepare(learner)
        exchange = self.compression.exchange(learner, self.wire, self.clip_norm)
        self.exchange = Averaged(learner, self.wire) if exchange is None else exchange
        self.dense = self.exchange.dense

    def reduce_gradients(self, scale: float, step: int) -> None:
        self.exchange.reduce(scale, step)
        self.sent = self.exchange.sent

    def describe(self) -> list[str]:
        lines = self._what_is_sent()
        if lines and self.processes.simulated:
            lines.append(
                f"{self.workers} workers simulated in one process; the bytes are those that one of them would have sent"
            )
        return lines

    def _what_is_sent(self) -> list[str]:
        return self.exchange.describe()

    def figures(self) -> dict[str, float]:
        return self.exchange.figures()

    def state_dict(self) -> dict[str, Any]:
        return self.exchange.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.exchange.load_state_dict(state)


def averaging(processes: Processes, compression: GradCompressor, clip_norm: float | None) -> Strategy:
    """The strategy that averages gradients of workers with all weights, for these processes and this compression."""
    if compression.sends or processes.simulated:
        return Exchanged(processes, compression, clip_norm)
    return DdpStrategy(processes) if processes.world > 1 else Single(processes)


def check_same(sums: list[int], processes: Processes) -> None:
    """LmctlError unless all processes have the same checksums of their weights."""
    if any(processes.sum([sums != processes.broadcast(sums)])):
        raise LmctlError("the processes of this run did not begin with the same weights")


def checksum(module: nn.Module) -> list[int]:
    """Checksum per tensor of the state, or of this process's shard: its bytes as integers, summed exactly in any order
    of summation."""
    words = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    state = [mine for tensor in module.state_dict().values() if (mine := local(tensor)).numel()]
    return [int(t.contiguous().view(words[t.element_size()]).sum(dtype=torch.int64)) for t in state]
