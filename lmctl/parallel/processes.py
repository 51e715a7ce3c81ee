"""Process group of a run: rank, device, and collective operations between processes.

Accelerate sets up the processes. Values on the host (counts of targets, stop requests) are exchanged over a separate
gloo group, so that no GPU synchronisation is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from lmctl.compression.wire import LoneWire, ProcessWire, Wire
from lmctl.core.errors import ConfigError, LmctlError
from lmctl.core.heap import keep_freed_memory
from lmctl.parallel.deterministic import choose_kernels
from lmctl.parallel.disks import Disks
from lmctl.runner.base import TIMEOUT_S

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

WATCHED_SECONDS = 60.0
"""How much longer torch waits in a collective operation than the watchdog, which reports more of a hang."""


class Problem(NamedTuple):
    """An error for the user, as it is told to other processes."""

    kind: Any
    where: str
    message: str
    hint: str | None

    def error(self) -> LmctlError:
        """The error, to be raised in all processes."""
        error: LmctlError = self.kind(f"{self.where}{self.message}", self.hint)
        error.everywhere = True
        return error


class Processes:
    """This process (rank) in its process group."""

    simulated = False
    """Whether the workers are threads of one process."""
    disks = Disks()
    """Which processes see the run directory, once that is known."""

    def __init__(self, on_cpu: bool, timeout_s: float = TIMEOUT_S) -> None:
        """`timeout_s`: how long a process waits for another one in a collective operation."""
        check_device(on_cpu)
        if on_cpu:
            keep_freed_memory()
        else:
            choose_kernels()
        # Accelerate's mixed precision stays off: on a CPU its "fp16" silently computes in fp32. Autocast and loss
        # scaling are those of `lmctl.precision`, the same on every device.
        self._patience = timedelta(seconds=timeout_s + WATCHED_SECONDS)
        handlers = [InitProcessGroupKwargs(timeout=self._patience)]
        self.accelerator = Accelerator(cpu=on_cpu, mixed_precision="no", kwargs_handlers=handlers)
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device
        self._hosts: Any = None
        if self.world > 1:
            self._hosts = self.new_group()

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes files and prints."""
        return self.rank == 0

    def new_group(self) -> Any:
        """A gloo group of all processes, for values on the host; another thread needs one of its own. A collective
        operation."""
        return dist.new_group(backend="gloo", timeout=self._patience)

    def wire(self) -> Wire:
        """Collectives between workers, for gradients."""
        return ProcessWire(self.rank, self.world) if self.world > 1 else LoneWire()

    def sum(self, values: list[float]) -> list[float]:
        """All-reduce of host values: each summed over all processes, with bit-identical results in all of them."""
        if self.world == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=self._hosts)
        return tensor.tolist()

    def sum_of_processes(self, values: list[float]) -> list[float]:
        """The same for values of processes: simulated workers, threads of one process, count once."""
        return self.sum(values)

    def vote(self) -> Callable[[bool], bool]:
        """A function that says in every process whether any of them said yes. It has a group of its own, so that
        another thread may call it. A collective operation itself."""
        if self.world == 1:
            return lambda own: own
        group = self.new_group()

        def anywhere(own: bool) -> bool:
            said = torch.tensor([int(own)])
            dist.all_reduce(said, group=group)
            return bool(said)

        return anywhere

    def all_reduce(self, tensor: Tensor) -> None:
        """All-reduce (sum) of `tensor`, on this process's device, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)

    def broadcast(self, value: Any) -> Any:
        """Broadcast `value` from rank 0 to all."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._hosts)
        return box[0]

    def gathered(self, value: T) -> list[T]:
        """All-gather of a value of every process, by rank, in all of them."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self._hosts)
        return values

    def first_does(self, act: Callable[[], T]) -> T | None:
        """Run `act()` in rank 0 only and return its value there, None elsewhere. An error for the user is raised in all
        processes, so that none waits for rank 0 forever."""
        value, problem = self._tried(act) if self.first else (None, None)
        problem = self.broadcast(problem)
        if problem is not None:
            raise problem.error()
        return value

    def all_do(self, act: Callable[[], T]) -> T:
        """Run `act()` in every process. An error for the user is raised in all of them: the one of the first process
        that has one, which is named if it is another than rank 0."""
        value, problem = self._tried(act)
        for found in self.gathered(problem):
            if found is not None:
                raise found.error()
        return cast("T", value)

    def _tried(self, act: Callable[[], T]) -> tuple[T | None, Problem | None]:
        try:
            return act(), None
        except LmctlError as error:
            where = "" if self.first else f"rank {self.rank}: "
            return None, Problem(_plain_kind(type(error)), where, str(error), error.hint)

    def barrier(self) -> None:
        """Barrier: wait for all processes."""
        if self.world > 1:
            dist.barrier(group=self._hosts)

    def close(self) -> None:
        """Destroy the process group, all at the same time: leaving early breaks the connections of the others."""
        self.barrier()
        self.accelerator.end_training()


def _plain_kind(kind: type[LmctlError]) -> type[LmctlError]:
    """The class of an error, or the nearest of its bases that is made of a message and a hint alone."""
    bases = kind.__mro__
    own = [one for one in bases[: bases.index(LmctlError)] if "__init__" in vars(one)]
    found: type[LmctlError] = bases[bases.index(own[-1]) + 1] if own else kind
    return found


def check_device(on_cpu: bool) -> None:
    """ConfigError if the device is not available."""
    if not on_cpu and not torch.cuda.is_available():
        raise ConfigError("runner: no GPU is visible here", "use runner=cpu or runner=auto")
