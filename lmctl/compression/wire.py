"""Collective operations between the workers of a run (all-reduce, all-gather, all-to-all), with the bytes sent counted.

Every worker has its own wire, and all workers make the same calls in the same order. Each call blocks until all have
made it; calls are not chained as asynchronous work, which gloo does not support. Code that uses only a wire does not
depend on whether workers are processes or threads (`lmctl.parallel.simulate`), and computes the same bits with either:
sums are made in the order of ranks (`summed`), where a ring would begin each part at another worker.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from lmctl.compression.traffic import all_reduce_bytes, gather_bytes, scatter_bytes


class Wire(ABC):
    """Collectives of one worker with all W, itself included."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world
        self.sent = 0
        """Bytes sent by this worker so far."""

    def all_reduce(self, vector: Tensor, count: bool = True) -> Tensor:
        """All-reduce: the sum of all workers' vectors [n]. `count`: whether the bytes are counted."""
        if count:
            self.sent += all_reduce_bytes(vector.numel() * vector.element_size(), self.world)
        return self._all_reduce(vector)

    def all_gather(self, message: Tensor) -> Tensor:
        """All-gather: every worker's message uint8 [b], to all: [W, b]."""
        self.sent += gather_bytes(len(message), self.world)
        return self._all_gather(message)

    def all_to_all(self, messages: Tensor) -> Tensor:
        """All-to-all: row w of this worker's messages uint8 [W, b] goes to worker w; returns the rows received, [W,
        b]."""
        self.sent += scatter_bytes(messages.numel(), self.world)
        return self._all_to_all(messages)

    def all_gather_parts(self, message: Tensor) -> Tensor:
        """All-gather after `all_to_all`: each worker's result for its part, uint8 [b], to all: [W, b]."""
        self.sent += scatter_bytes(self.world * len(message), self.world)
        return self._all_gather(message)

    @abstractmethod
    def _all_reduce(self, vector: Tensor) -> Tensor: ...

    @abstractmethod
    def _all_to_all(self, messages: Tensor) -> Tensor: ...

    @abstractmethod
    def _all_gather(self, message: Tensor) -> Tensor: ...


class LoneWire(Wire):
    """The wire of a single worker: nothing is sent."""

    def __init__(self) -> None:
        super().__init__(0, 1)

    def _all_reduce(self, vector: Tensor) -> Tensor:
        return vector.clone()

    def _all_to_all(self, messages: Tensor) -> Tensor:
        return messages

    def _all_gather(self, message: Tensor) -> Tensor:
        return message[None]


class ProcessWire(Wire):
    """Collectives of torch.distributed between processes."""

    def __init__(self, rank: int, world: int, group: dist.ProcessGroup | None = None) -> None:
        """`group`: the process group that rank and world belong to; None: that of all."""
        super().__init__(rank, world)
        self.group = group

    def _all_reduce(self, vector: Tensor) -> Tensor:
        n = len(vector)
        share = -(-n // self.world)
        parts = F.pad(vector, (0, self.world * share - n)).view(self.world, share)
        part = summed(self._all_to_all(parts.view(torch.uint8)).view(vector.dtype))
        return self._all_gather(part.view(torch.uint8)).view(vector.dtype).flatten()[:n]

    def _all_to_all(self, messages: Tensor) -> Tensor:
        received = torch.empty_like(messages)
        dist.all_to_all_single(received, messages.contiguous(), group=self.group)
        return received

    def _all_gather(self, message: Tensor) -> Tensor:
        gathered = message.new_empty((self.world, len(message)))
        dist.all_gather(list(gathered.unbind()), message.contiguous(), group=self.group)
        return gathered


def summed(parts: Tensor) -> Tensor:
    """Sum over the workers' parts [W, n] one after the other, with the same bits whatever the shape: [n]."""
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total
