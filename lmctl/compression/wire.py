"""What the workers of a run say to each other, and how many bytes that is.

Every worker has a wire of its own and all make the same calls in the same order; each call blocks until all have made
it, and none is chained to another's completion, which gloo does not stand. Whoever speaks through a wire alone does not
know whether the others are processes or threads (`lmctl.parallel.simulate`), and computes the same bits with either.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.distributed as dist
from torch import Tensor

from lmctl.compression.traffic import all_reduce_bytes, gather_bytes, scatter_bytes


class Wire(ABC):
    """One worker's connection with all W, itself included."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world
        self.sent = 0
        """Bytes that this worker has sent so far."""

    def total(self, vector: Tensor, count: bool = True) -> Tensor:
        """The sum of all workers' vectors [n]. Unless told not to, counts what is sent."""
        if count:
            self.sent += all_reduce_bytes(vector.numel() * vector.element_size(), self.world)
        return self._summed(vector)

    def gather(self, message: Tensor) -> Tensor:
        """Every worker's message uint8 [b] to everyone: [W, b]."""
        self.sent += gather_bytes(len(message), self.world)
        return self._gathered(message)

    def scatter(self, messages: Tensor) -> Tensor:
        """Row w of this worker's messages uint8 [W, b] to worker w; what was sent to this one, [W, b]."""
        self.sent += scatter_bytes(messages.numel(), self.world)
        return self._swapped(messages)

    def rejoin(self, message: Tensor) -> Tensor:
        """What each worker made of the part that was scattered to it, uint8 [b], to everyone: [W, b]."""
        self.sent += scatter_bytes(self.world * len(message), self.world)
        return self._gathered(message)

    @abstractmethod
    def _summed(self, vector: Tensor) -> Tensor: ...

    @abstractmethod
    def _swapped(self, messages: Tensor) -> Tensor: ...

    @abstractmethod
    def _gathered(self, message: Tensor) -> Tensor: ...


class LoneWire(Wire):
    """That of a worker without others."""

    def __init__(self) -> None:
        super().__init__(0, 1)

    def _summed(self, vector: Tensor) -> Tensor:
        return vector.clone()

    def _swapped(self, messages: Tensor) -> Tensor:
        return messages

    def _gathered(self, message: Tensor) -> Tensor:
        return message[None]


class ProcessWire(Wire):
    """torch's process group."""

    def _summed(self, vector: Tensor) -> Tensor:
        summed = vector.clone()
        dist.all_reduce(summed)
        return summed

    def _swapped(self, messages: Tensor) -> Tensor:
        received = torch.empty_like(messages)
        dist.all_to_all_single(received, messages.contiguous())
        return received

    def _gathered(self, message: Tensor) -> Tensor:
        gathered = message.new_empty((self.world, len(message)))
        dist.all_gather(list(gathered.unbind()), message.contiguous())
        return gathered
