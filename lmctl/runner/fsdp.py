"""Fully sharded data parallelism: `lmctl.parallel.fsdp` shards weights, gradients and optimiser states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmctl.compression.base import not_in_shards
from lmctl.core.errors import ConfigError
from lmctl.distill.on_policy import OnPolicy
from lmctl.objective.rtd import ReplacedTokens
from lmctl.runner.places import Ddp

if TYPE_CHECKING:
    from lmctl.compression.base import GradCompressor
    from lmctl.parallel.processes import Processes
    from lmctl.parallel.strategy import Strategy
    from lmctl.plan import Plan


@dataclass(frozen=True)
class Fsdp(Ddp):
    """Several processes that together hold the model once (FSDP2), or once in each of `replicas` groups (HSDP)."""

    replicas: int = 1
    offload: bool = False
    """Keep shards of weights, gradients and optimiser states in host memory, where the optimiser then runs, and only
    what is gathered on the GPU (ZeRO-Offload: Ren et al. 2021)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.replicas < 1:
            raise ValueError(f"replicas must be at least 1, got {self.replicas}")

    def shards(self, world: int) -> int:
        return world // self.replicas

    def strategy(self, processes: Processes, compression: GradCompressor, clip_norm: float | None) -> Strategy:
        if self.shards(processes.world) == 1:
            return super().strategy(processes, compression, clip_norm)
        from lmctl.parallel.fsdp import FsdpStrategy

        return FsdpStrategy(processes, self.replicas, compression, self.offload)

    def world(self) -> int:
        world = super().world()
        if self.offload and self.on_cpu():
            raise ConfigError(
                "runner.offload=true: this run computes on CPUs, so there is nothing to offload from a GPU",
                "nearest: runner.offload=false",
            )
        if world % self.replicas:
            raise ConfigError(
                f"runner.replicas={self.replicas} does not divide {world} processes",
                f"nearest: runner.replicas={max(n for n in range(1, self.replicas) if world % n == 0)}",
            )
        if self.offload and self.shards(world) == 1:
            raise ConfigError(
                "runner.offload=true is for shards, and here every process has whole weights",
                "nearest: runner.offload=false, or more processes",
            )
        return world

    def check(self, plan: Plan) -> Iterator[ConfigError]:
        """Whatever needs whole weights or gradients."""
        for what, why, nearest in self._refused(plan):
            yield not_in_shards(what, why, nearest)
        yield from plan.compression.check_shards(plan)

    def _refused(self, plan: Plan) -> Iterator[tuple[str, str, str]]:
        """What of the plan is not legal here, why, and what is."""
        precision, optim = type(plan.precision).__name__, type(plan.optim).__name__
        if plan.precision.storage is not None or plan.precision.product in ("int8", "fp8"):
            yield (
                f"precision {precision}",
                "keeps weights in a format of its own, which cannot be sharded",
                "precision=bf16",
            )
        if self.offload and precision == "Fp16":
            yield "runner.offload=true", "does not scale gradients (precision=fp16) in host memory", "precision=bf16"
        if plan.compile:
            yield "compile=true", "would compile layers with weights that come and go", "compile=false"
        if plan.optim.state_bits == 8:
            yield "optim.state_bits=8", "knows no shards (bitsandbytes)", "optim.state_bits=32"
        if plan.optim.whole_matrices:
            yield optim, "looks at whole matrices, and a process has some rows of them", "optim=adamw"
        if plan.mix.conflict_every is not None:
            yield "mix.conflict_every", "compares whole gradients", "mix.conflict_every=null"
        if any(isinstance(term, OnPolicy) for term in plan.distill.terms.values()):
            yield "distill with the student's own texts", "would gather its weights for every piece", "another distill="
        tasks = [task.objective for task in plan.mix.tasks.values()]
        if len(tasks) > 1 and any(isinstance(one, ReplacedTokens) for one in tasks):
            yield "a generator beside other tasks", "is not used in every pass, as all layers must be", "a single task"
