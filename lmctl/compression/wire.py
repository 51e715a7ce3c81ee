"""How workers talk: over torch's process group, or inside one process that plays all of them.

What compresses is written once, for the list of workers that live in this process: one where processes are real, all
of them where they are simulated. Every call blocks and is made by all workers in the same order; none is chained to
another's completion, which gloo does not stand.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from lmctl.compression.traffic import all_reduce_bytes, gather_bytes, scatter_bytes


class Wire:
    """The connection of this process's workers (L of them) with all (W)."""

    def __init__(self, rank: int, world: int, simulated: int | None) -> None:
        """`simulated` workers in one process; None: the `world` processes are the workers."""
        self.simulated = simulated is not None
        self.world = simulated if simulated is not None else world
        self.places: Sequence[int] = range(simulated) if simulated is not None else range(rank, rank + 1)
        self.sent = 0
        """Bytes that one worker has sent so far."""

    def total(self, vectors: list[Tensor], count: bool = True) -> Tensor:
        """The sum over all workers of one vector each: L tensors float32 [n] in, [n] out. Unless told not to, counts
        what is sent."""
        summed = torch.stack(vectors).sum(dim=0) if self.simulated else self._summed(vectors[0])
        if count:
            self.sent += all_reduce_bytes(summed.numel() * summed.element_size(), self.world)
        return summed

    def gather(self, messages: list[Tensor]) -> Tensor:
        """Every worker's message to everyone: L tensors uint8 [b] in, [W, b] out."""
        self.sent += gather_bytes(len(messages[0]), self.world)
        return self._all(messages)

    def scatter(self, messages: list[Tensor]) -> list[Tensor]:
        """Row w of a worker's messages to worker w: L tensors uint8 [W, b] in, of each worker what was sent to it
        [W, b] out."""
        self.sent += scatter_bytes(messages[0].numel(), self.world)
        if self.simulated:
            return list(torch.stack(messages).unbind(dim=1))
        return [self._swapped(messages[0])]

    def rejoin(self, messages: list[Tensor]) -> Tensor:
        """What each worker made of the part that was scattered to it, to everyone: L x uint8 [b] in, [W, b] out."""
        self.sent += scatter_bytes(self.world * len(messages[0]), self.world)
        return self._all(messages)

    def _all(self, messages: list[Tensor]) -> Tensor:
        if self.simulated:
            return torch.stack(messages)
        return self._gathered(messages[0])

    def _summed(self, vector: Tensor) -> Tensor:
        summed = vector.clone()
        dist.all_reduce(summed)
        return summed

    def _swapped(self, message: Tensor) -> Tensor:
        received = torch.empty_like(message)
        dist.all_to_all_single(received, message.contiguous())
        return received

    def _gathered(self, message: Tensor) -> Tensor:
        gathered = message.new_empty((self.world, len(message)))
        dist.all_gather(list(gathered.unbind()), message.contiguous())
        return gathered
