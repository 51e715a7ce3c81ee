"""Options of `runner`: CPU, GPU, or several processes. Settings only; `lmctl.parallel.launch` starts the processes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Optional

from lmctl.core.errors import ConfigError
from lmctl.runner.base import TIMEOUT_S, Node, Runner

if TYPE_CHECKING:
    from lmctl.compression.base import GradCompressor
    from lmctl.parallel.processes import Processes
    from lmctl.parallel.strategy import Strategy


@dataclass(frozen=True)
class Replicated(Runner):
    """Every worker has all weights, and gradients are averaged between them; the base of those that do so."""

    def strategy(self, processes: Processes, compression: GradCompressor, clip_norm: float | None) -> Strategy:
        from lmctl.parallel.strategy import averaging

        return averaging(processes, compression, clip_norm)


@dataclass(frozen=True)
class Auto(Replicated):
    """One process per GPU; without a GPU one process on the CPU."""

    def world(self) -> int:
        import torch

        return max(1, torch.cuda.device_count())

    def on_cpu(self) -> bool:
        import torch

        return not torch.cuda.is_available()


@dataclass(frozen=True)
class Cpu(Replicated):
    """One process on the CPU."""

    def world(self) -> int:
        return 1

    def on_cpu(self) -> bool:
        return True


@dataclass(frozen=True)
class Gpu(Replicated):
    """One process on one GPU."""

    def world(self) -> int:
        return 1

    def on_cpu(self) -> bool:
        return False


@dataclass(frozen=True)
class Either(Replicated):
    """Several workers on the kind of device that `device` names; auto is GPU if there is one, else CPU."""

    device: str = field(default="auto", kw_only=True)

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "gpu"):
            raise ValueError(f"device must be auto, cpu or gpu, got {self.device!r}")

    def on_cpu(self) -> bool:
        import torch

        return self.device == "cpu" or (self.device == "auto" and not torch.cuda.is_available())


@dataclass(frozen=True)
class Launched(Either):
    """Several processes, on one node (machine) or on several, which torch's elastic launcher starts."""

    processes: Optional[int] = None
    """Of each node."""
    nodes: int = field(default=1, kw_only=True)
    node_rank: Optional[int] = field(default=None, kw_only=True)
    rendezvous: Optional[str] = field(default=None, kw_only=True)
    timeout_s: float = field(default=TIMEOUT_S, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.processes is not None and self.processes < 1:
            raise ValueError(f"processes must be at least 1, got {self.processes}")
        if self.nodes < 1:
            raise ValueError(f"nodes must be at least 1, got {self.nodes}")
        if self.node_rank is not None and not 0 <= self.node_rank < self.nodes:
            raise ValueError(f"node_rank must be 0 to {self.nodes - 1} with nodes={self.nodes}, got {self.node_rank}")
        if self.rendezvous is not None and not _is_address(self.rendezvous):
            raise ValueError(f"rendezvous must be HOST:PORT, got {self.rendezvous!r} (ports are 1 to 65535)")
        if self.timeout_s < 1:
            raise ValueError(f"timeout_s must be at least 1, got {self.timeout_s:g}")

    def world(self) -> int:
        return self.nodes * self.per_node()

    def per_node(self) -> int:
        """The number of processes of this node. ConfigError for more than there are GPUs, or than CPUs could bear."""
        import torch

        if self.on_cpu():
            if (self.processes or 0) > (most := max(MOST, 8 * (os.cpu_count() or 1))):
                raise ConfigError(
                    f"runner.processes={self.processes}: this machine has {os.cpu_count()} cores, and each process "
                    "loads the model and torch for itself",
                    f"nearest: runner.processes={most}",
                )
            return self.processes or 2
        gpus = torch.cuda.device_count()
        if not gpus:
            raise ConfigError(
                "runner.device=gpu: no GPU is visible here", "use runner.device=cpu or runner.device=auto"
            )
        if self.processes is not None and self.processes > gpus:
            raise ConfigError(
                f"runner.processes={self.processes}: this machine has {gpus} GPUs",
                f"nearest: runner.processes={gpus}, or runner.device=cpu",
            )
        return self.processes or gpus

    def node(self) -> Node:
        if self.nodes == 1:
            return Node()
        rank = self.node_rank if self.node_rank is not None else _number(NODE_RANKS)
        if rank is None or not 0 <= rank < self.nodes:
            found = "nothing says which of them this is" if rank is None else f"this one is said to be number {rank}"
            raise ConfigError(
                f"runner.nodes={self.nodes}: {found}",
                f"runner.node_rank=0 on the first, up to {self.nodes - 1}; or the environment variable NODE_RANK",
            )
        return Node(self.nodes, rank, self.rendezvous or _rendezvous(self.nodes))


@dataclass(frozen=True)
class Ddp(Launched):
    """Distributed data parallel: processes average their gradients (Li et al. 2020, "PyTorch Distributed")."""

    shared_run_dir: bool = field(default=True, kw_only=True)


MOST = 64
"""Processes that may share any machine without a GPU: more is a slip of the finger."""
NODE_RANKS = ("NODE_RANK", "SLURM_NODEID")
"""Environment variables with the number of this node."""
PORT = 29500
"""Where the nodes meet if MASTER_PORT says nothing; as torchrun's."""


def _is_address(text: str) -> bool:
    """Whether it is HOST:PORT, and no URL."""
    match = re.fullmatch(r"[^\s/]+:(\d{1,5})", text)
    return match is not None and 0 < int(match[1]) < 1 << 16


def _number(names: Sequence[str]) -> int | None:
    """The first of these environment variables that holds a number."""
    values = (os.environ.get(name, "") for name in names)
    return next((int(value) for value in values if value.isdecimal()), None)


def _rendezvous(nodes: int) -> str:
    """HOST:PORT from the environment."""
    host = os.environ.get("MASTER_ADDR")
    if not host:
        raise ConfigError(
            f"runner.nodes={nodes}: nothing says where the nodes meet",
            f"runner.rendezvous=HOST:{PORT}, where HOST is the node of rank 0; or the variable MASTER_ADDR",
        )
    return f"{host}:{_number(['MASTER_PORT']) or PORT}"
