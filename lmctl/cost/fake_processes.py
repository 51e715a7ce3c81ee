"""Stand-ins for the other processes of a rehearsed step: the process group, DDP, and the network between workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lmctl.compression.traffic import all_reduce_bytes
from lmctl.compression.wire import Wire
from lmctl.cost.memory_tracker import GRADIENTS, MemoryTracker
from lmctl.parallel.strategy import Single, Trainable


class FakeProcesses:
    """Stand-in for `Processes`: any number of processes, of which only this one exists."""

    rank = 0

    def __init__(self, world: int, device: torch.device, simulated: bool) -> None:
        self.world, self.device, self.simulated = world, device, simulated

    def wire(self) -> Wire:
        return FakeWire(0, self.world)

    def sum(self, values: list[float]) -> list[float]:
        return values

    def broadcast(self, value: Any) -> Any:
        return value


class FakeDdp(Single):
    """DDP's memory: a gradient bucket from the start. In the pass that exchanges gradients each is moved into its
    bucket as soon as it is computed (`gradient_as_bucket_view`)."""

    def __init__(self, processes: Any, live: MemoryTracker) -> None:
        super().__init__(processes)
        self.live, self.exchanges = live, True

    def prepare(self, learner: Trainable) -> None:
        super().prepare(learner)
        learns = [p for p in learner.parameters() if p.requires_grad]
        with self.live.born(GRADIENTS):
            self.buckets = {p: torch.empty_like(p) for p in learns}
        for parameter in self.buckets:
            parameter.register_post_accumulate_grad_hook(self._move_into_bucket)
        self.sent = all_reduce_bytes(sum(p.numel() * p.element_size() for p in learns), self.workers)
        self.dense = all_reduce_bytes(sum(4 * p.numel() for p in learns), self.workers)

    @contextmanager
    def accumulate(self, last: bool) -> Iterator[None]:
        self.exchanges = last
        yield

    def _move_into_bucket(self, parameter: Any) -> None:
        if self.exchanges:
            parameter.grad = self.buckets[parameter]


class FakeWire(Wire):
    """A wire that counts bytes instead of sending."""

    def _all_reduce(self, vector: Tensor) -> Tensor:
        return vector.clone()

    def _all_to_all(self, messages: Tensor) -> Tensor:
        return torch.empty_like(messages)

    def _all_gather(self, message: Tensor) -> Tensor:
        return message.new_empty((self.world, len(message)))
