"""The processes of a run: which one this is, its device, and what they tell each other.

Accelerate knows the processes. What the host must know (counts of targets, stop requests) goes
over a gloo group of its own, so that no GPU has to be waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator

from lmctl.compression.wire import LoneWire, ProcessWire, Wire
from lmctl.core.errors import ConfigError, LmctlError
from lmctl.train.deterministic import choose_kernels

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


class Processes:
    """This process among its peers."""

    simulated = False
    """Whether the peers are threads of one process."""

    def __init__(self, on_cpu: bool) -> None:
        check_device(on_cpu)
        if not on_cpu:
            choose_kernels()
        # Accelerate's own mixed precision stays off: on a CPU its "fp16" silently computes fp32, so
        # `lmctl.precision` brings autocast and loss scaling itself, the same way on every device.
        self.accelerator = Accelerator(cpu=on_cpu, mixed_precision="no")
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device
        self._hosts: Any = None
        if self.world > 1:
            self._hosts = dist.new_group(backend="gloo")

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def wire(self) -> Wire:
        """This worker's connection with all, for gradients."""
        return ProcessWire(self.rank, self.world) if self.world > 1 else LoneWire()

    def sum(self, values: list[float]) -> list[float]:
        """Each value summed over all processes, exactly the same in each of them."""
        if self.world == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=self._hosts)
        return tensor.tolist()

    def sum_of_processes(self, values: list[float]) -> list[float]:
        """The same for what belongs to processes: of those that are threads of one, only the first counts."""
        return self.sum(values)

    def add_up(self, tensor: Tensor) -> None:
        """Make `tensor`, on this process's device, the sum over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)

    def agree(self, value: Any) -> Any:
        """The first process's `value`, in all of them."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._hosts)
        return box[0]

    def first_does(self, act: Callable[[], T]) -> T | None:
        """`act()` in the first process; what it raises for the user's eyes is raised in all of them, so that none
        waits for one that has gone. Returns its value there, and None elsewhere."""
        value, problem = None, None
        if self.first:
            try:
                value = act()
            except LmctlError as error:
                problem = (type(error), str(error), error.hint)
        problem = self.agree(problem)
        if problem is not None:
            kind, message, hint = problem
            raise kind(message, hint)
        return value

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            dist.barrier(group=self._hosts)

    def close(self) -> None:
        """Leave the group together; whoever leaves early breaks the others' connections."""
        self.wait()
        self.accelerator.end_training()


def check_device(on_cpu: bool) -> None:
    """ConfigError if there is no such device here."""
    if not on_cpu and not torch.cuda.is_available():
        raise ConfigError("runner: no GPU is visible here", "use runner=cpu or runner=auto")
