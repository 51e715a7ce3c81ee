"""Simulated data parallelism: workers are threads of one process, and compute the same bits as W processes would.

Each worker has all that a process has: weights, optimiser, rows, dropout, error feedback. One thread runs at a time,
until its next collective operation, then the next one; so random numbers are drawn in a fixed order, and every worker
has its own generators. A collective reads messages only after all workers have written theirs.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from lmctl.compression.wire import Wire, summed
from lmctl.core.heap import share_heap
from lmctl.parallel.processes import Processes
from lmctl.parallel.random_state import random_state, restore_random_state

Result = TypeVar("Result")


class Abandoned(BaseException):
    """Ends a thread because another worker has failed, which reports its own error."""


class Baton:
    """Lock that is passed on in the order of ranks: only the worker that holds it runs."""

    def __init__(self, world: int) -> None:
        self.world, self.turn, self.failed = world, 0, False
        self.letters: list[Any] = [None] * world
        self._changed = threading.Condition()
        self._random = [random_state() for _ in range(world)]

    def exchanged(self, rank: int, letter: Any) -> list[Any]:
        """All-gather of any objects: the letters (messages) of all workers, by rank."""
        self.letters[rank] = letter
        self.pass_on(rank)  # when it returns, all workers have written
        self.take(rank)
        found = list(self.letters)
        self.pass_on(rank)  # when it returns again, all workers have read
        self.take(rank)
        return found

    def take(self, rank: int) -> None:
        """Wait for this worker's turn."""
        with self._changed:
            self._changed.wait_for(lambda: self.turn == rank or self.failed)
            if self.failed:
                raise Abandoned
        restore_random_state(self._random[rank])

    def pass_on(self, rank: int) -> None:
        """Give the turn to the next worker."""
        self._random[rank] = random_state()
        with self._changed:
            self.turn = (rank + 1) % self.world
            self._changed.notify_all()

    def give_up(self) -> None:
        """Stop all other workers after a failure."""
        with self._changed:
            self.failed = True
            self._changed.notify_all()


class ThreadWire(Wire):
    """Collective operations between threads."""

    def __init__(self, rank: int, baton: Baton) -> None:
        super().__init__(rank, baton.world)
        self.baton = baton

    def _all_reduce(self, vector: Tensor) -> Tensor:
        return summed(torch.stack(self.baton.exchanged(self.rank, vector)))

    def _all_to_all(self, messages: Tensor) -> Tensor:
        return torch.stack([letter[self.rank] for letter in self.baton.exchanged(self.rank, messages)])

    def _all_gather(self, message: Tensor) -> Tensor:
        return torch.stack(self.baton.exchanged(self.rank, message))


class ThreadProcesses(Processes):
    """One simulated worker: the process group made of threads."""

    simulated = True

    def __init__(self, played_by: Processes, rank: int, baton: Baton) -> None:
        self.accelerator, self.device = played_by.accelerator, played_by.device
        self.rank, self.world, self.baton = rank, baton.world, baton

    def wire(self) -> Wire:
        return ThreadWire(self.rank, self.baton)

    def sum(self, values: list[float]) -> list[float]:
        letters = self.baton.exchanged(self.rank, torch.tensor(values, dtype=torch.float64))
        return torch.stack(letters).sum(dim=0).tolist()

    def sum_of_processes(self, values: list[float]) -> list[float]:
        return self.broadcast(values)

    def all_reduce(self, tensor: Tensor) -> None:
        total = torch.stack(self.baton.exchanged(self.rank, tensor)).sum(dim=0)
        self.barrier()  # no worker overwrites its tensor before all have read it
        tensor.copy_(total)

    def broadcast(self, value: Any) -> Any:
        first = self.baton.exchanged(self.rank, value)[0]
        return value if self.first else copy.deepcopy(first)

    def barrier(self) -> None:
        self.baton.exchanged(self.rank, None)

    def close(self) -> None:
        """Nothing to close: the threads end by themselves."""


def in_turns(world: int, work: Callable[[int, Baton], Result]) -> list[Result]:
    """Run `work(rank, baton)` in `world` threads and return their results by rank. Raises the error of the first worker
    that failed."""
    share_heap()
    baton = Baton(world)
    results: dict[int, Result] = {}
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            baton.take(rank)
            results[rank] = work(rank, baton)
            baton.pass_on(rank)
        except Abandoned:
            pass
        except BaseException as error:
            errors.append(error)
            baton.give_up()

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[rank] for rank in range(world)]


def simulate(world: int, processes: Processes, work: Callable[[Processes], Result]) -> Result:
    """Run `work` in `world` simulated workers of this process; returns the result of rank 0."""
    return in_turns(world, lambda rank, baton: work(ThreadProcesses(processes, rank, baton)))[0]


def as_workers(count: int | None, processes: Processes, work: Callable[[Processes], Result]) -> Result:
    """Run `work` in this process, or in `count` simulated workers; returns the result of rank 0."""
    return work(processes) if count is None or count == 1 else simulate(count, processes, work)
