"""Options of `runner`: CPU, GPU, or several processes. Settings only; `lmctl.parallel.launch` starts the processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Optional

from lmctl.core.errors import ConfigError
from lmctl.runner.base import Runner

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
class Ddp(Either):
    """Distributed data parallel: processes average their gradients (Li et al. 2020, "PyTorch Distributed")."""

    processes: Optional[int] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.processes is not None and self.processes < 1:
            raise ValueError(f"processes must be at least 1, got {self.processes}")

    def world(self) -> int:
        import torch

        if self.on_cpu():
            return self.processes or 2
        gpus = torch.cuda.device_count()
        if self.processes is not None and self.processes > gpus:
            raise ConfigError(
                f"runner.processes={self.processes}: this machine has {gpus} GPUs",
                f"nearest: runner.processes={gpus}, or runner.device=cpu",
            )
        return self.processes or gpus
