"""Fully sharded data parallelism (FSDP2, torch's `fully_shard`; Zhao et al. 2023; as ZeRO-3, Rajbhandari et al. 2020):
weights, gradients and optimiser states are spread over the processes.

Each layer of the network is a group: its weights are gathered before it computes and freed afterwards, in both
directions, and its gradients are averaged and scattered as soon as its backward pass is over. All else (embeddings,
heads, what they share) is the root's group, gathered from a pass's beginning to its end. All processes gather together,
so each must make as many passes as the others (`Strategy.turns`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Replicate, Shard

from lmctl.compression.traffic import all_reduce_bytes, scatter_bytes
from lmctl.core.heap import map_large_blocks
from lmctl.core.shards import is_sharded, local, rows_of
from lmctl.parallel.deferred_weights import DeferredWeights
from lmctl.parallel.processes import Processes
from lmctl.parallel.strategy import Strategy, Trainable, check_same, checksum
from lmctl.precision.half_linear import half_copies


@dataclass(frozen=True)
class PassBytes:
    """What one process sends for a forward and a backward pass, in rings, and what is gathered for it."""

    gathers: int
    """Sent in all-gathers: everything twice."""
    scatters: int
    """Sent in reduce-scatters of gradients."""
    reduces: int
    """Sent in all-reduces between replicas."""
    dense: int
    """All of it, if weights were gathered in float32."""
    root: int
    """Bytes of weights outside of layers, which are whole during a pass."""
    largest: int
    """Bytes of the largest layer."""
    layers: int
    """Number of layers that are gathered one by one."""

    @classmethod
    def of(cls, learner: Trainable, shards: int, replicas: int) -> PassBytes:
        """`learner` with whole or sharded weights."""
        units = [list(unit.parameters()) for unit in learner.units()]
        inside = {id(p): p.numel() for unit in units for p in unit}
        everything = sum(p.numel() for p in learner.parameters())
        learnt = 4 * sum(p.numel() for p in learner.parameters() if p.requires_grad)
        half = learner.precision.gathered(learner.device)
        size = 4 if half is None else half.itemsize
        root, layers = everything - sum(inside.values()), sum(inside.values())
        scatters = scatter_bytes(learnt, shards)
        reduces = all_reduce_bytes(learnt // shards, replicas) if replicas > 1 else 0
        return cls(
            gathers=2 * scatter_bytes(4 * root + size * layers, shards),
            scatters=scatters,
            reduces=reduces,
            dense=2 * scatter_bytes(4 * everything, shards) + scatters + reduces,
            root=4 * root,
            largest=size * max((sum(p.numel() for p in unit) for unit in units), default=0),
            layers=len(units),
        )

    @property
    def sent(self) -> int:
        return self.gathers + self.scatters + self.reduces


class FsdpStrategy(Strategy):
    """Every process has a shard of each tensor."""

    def __init__(self, processes: Processes, replicas: int = 1) -> None:
        """`replicas`: groups of processes that each hold the whole model together (HSDP); between them gradients are
        averaged as in DDP."""
        super().__init__(processes)
        if processes.device.type == "cpu":
            map_large_blocks()
        shape, names = ((replicas,), ("replicas",)) if replicas > 1 else ((), ())
        self.mesh = init_device_mesh(
            processes.device.type, (*shape, processes.world // replicas), mesh_dim_names=(*names, "shards")
        )
        self.replicas, self.group = replicas, self.mesh.get_group("shards")
        self._passes, self._deferred = 0, DeferredWeights()

    def building(self) -> DeferredWeights:
        return self._deferred

    def _made(self, module: nn.Module) -> list[int]:
        """Make what `module` is about to be sharded with, on its device; returns checksums of what is whole."""
        self._deferred.fill(module)
        if not any(map(is_sharded, module.parameters())):
            return checksum(module.to(self.processes.device))
        return checksum(nn.ParameterList(p for p in module.parameters() if not is_sharded(p)))

    def prepare(self, learner: Trainable) -> None:
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)  # changed by nobody
        for copy in half_copies(learner):
            copy.kept = False
        computed = learner.precision.gathered(self.processes.device)
        policy = MixedPrecisionPolicy(computed, reduce_dtype=computed and torch.float32, cast_forward_inputs=False)
        sums = []
        for unit in learner.units():
            sums += self._made(unit)
            fully_shard(unit, mesh=self.mesh, mp_policy=policy)
        sums += self._made(learner)
        check_same(sums, self.processes)
        self._deferred = DeferredWeights()
        # The root is not kept after its forward pass, although its backward pass follows at once: after a validation
        # nothing else would free it.
        fully_shard(learner, mesh=self.mesh, reshard_after_forward=True)
        for name in learner.readers:
            register_fsdp_forward_method(learner, name)
        self._learner = learner
        self.bytes = PassBytes.of(learner, self.workers // self.replicas, self.replicas)

    @property
    def learner(self) -> Trainable:
        return self._learner

    @property
    def overlaps(self) -> bool:
        return True

    @property
    def every_pass(self) -> bool:
        return True

    def turns(self, own: int) -> int:
        mine = [own if rank == self.processes.rank else 0 for rank in range(self.workers)]
        return int(max(self.processes.sum([float(one) for one in mine])))

    @contextmanager
    def accumulate(self, last: bool) -> Iterator[None]:
        """Gradients are scattered in every pass, because whole ones between two passes are what FSDP is there to
        avoid. A sum of means is the mean of sums."""
        self._passes += 1
        yield

    @torch.no_grad()
    def clip_grad_norm(self, clip_norm: float | None, waits: bool) -> Tensor:
        gradients = [local(p.grad) for p in self.learner.parameters() if p.grad is not None]
        square = torch.nn.utils.get_total_norm(gradients).double().square()
        dist.all_reduce(square, group=self.group)
        norm = square.sqrt().float()
        if (norm.device.type == "cpu" or waits) and not torch.isfinite(norm):
            return norm
        if clip_norm is not None:
            torch._foreach_mul_(gradients, (clip_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def placed(self, value: Any) -> Tensor:
        shape = torch.Size(value.shape)
        rows = rows_of(shape[0], self.mesh.size(-1), self.mesh.get_local_rank("shards"))
        mine = value[rows].to(self.processes.device, copy=True).contiguous()
        placements = (*[Replicate()] * (self.mesh.ndim - 1), Shard(0))
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(mine, self.mesh, placements, run_check=False, shape=shape, stride=stride)

    def after_step(self, taken: bool, last: bool) -> None:
        self.sent, self.dense = self._passes * self.bytes.sent, self._passes * self.bytes.dense
        self._passes = 0
