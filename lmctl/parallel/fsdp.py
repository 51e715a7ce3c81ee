"""Fully sharded data parallelism (FSDP2, torch's `fully_shard`; Zhao et al. 2023; as ZeRO-3, Rajbhandari et al. 2020):
weights, gradients and optimiser states are spread over the processes.

Each layer of the network is a group: its weights are gathered before it computes and freed afterwards, in both
directions, and its gradients are averaged and scattered as soon as its backward pass is over. All else (embeddings,
heads, what they share) is the root's group, gathered from a pass's beginning to its end. All processes gather together,
so each must make as many passes as the others (`Strategy.turns`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, Replicate, Shard

from lmctl.compression.base import GradCompressor
from lmctl.compression.reduce_scatter import QuantisedReduceScatter, ShardCompression
from lmctl.compression.traffic import all_reduce_bytes, scatter_bytes
from lmctl.compression.wire import ProcessWire
from lmctl.core.heap import map_large_blocks
from lmctl.core.shards import is_sharded, local, rows_of
from lmctl.parallel.deferred_weights import DeferredWeights
from lmctl.parallel.processes import Processes
from lmctl.parallel.strategy import Strategy, Trainable, check_same, checksum
from lmctl.precision.base import Precision
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
    root_gradients: int
    """Bytes of whole gradients outside of layers."""
    largest_gradients: int
    """Bytes of those of the layer that has most."""
    layers: int
    """Number of layers that are gathered one by one."""
    residual: int
    """Bytes of what is kept for error feedback."""

    @classmethod
    def of(cls, learner: Trainable, shards: int, replicas: int, compression: GradCompressor) -> PassBytes:
        """`learner` with whole or sharded weights."""
        units = [list(unit.parameters()) for unit in learner.units()]
        inside = {id(p): p.numel() for unit in units for p in unit}
        everything, learnt = _numbers(learner.parameters()), 4 * _learnt(learner.parameters())
        half = learner.precision.gathered(learner.device)
        size = 4 if half is None else half.itemsize
        root, layers = everything - sum(inside.values()), sum(inside.values())
        # gloo's reduce-scatter is an all-reduce of which a part is kept (torch 2.13, ProcessGroupGloo).
        plain = scatters = (all_reduce_bytes if learner.device.type == "cpu" else scatter_bytes)(learnt, shards)
        residual = 0
        if (method := compression.in_shards(learner)) is not None:
            columns = [method.columns(parameters, shards) for _, parameters in groups_of(learner)]
            scatters = sum(scatter_bytes(shards * group.message, shards) for group in columns)
            residual = 4 * shards * sum(group.quantised for group in columns) if method.feedback else 0
        reduces = all_reduce_bytes(learnt // shards, replicas) if replicas > 1 else 0
        return cls(
            gathers=2 * scatter_bytes(4 * root + size * layers, shards),
            scatters=scatters,
            reduces=reduces,
            dense=2 * scatter_bytes(4 * everything, shards) + plain + reduces,
            root=4 * root,
            largest=size * max(map(_numbers, units), default=0),
            root_gradients=learnt - 4 * sum(map(_learnt, units)),
            largest_gradients=size * max(map(_learnt, units), default=0),
            layers=len(units),
            residual=residual,
        )

    @property
    def sent(self) -> int:
        return self.gathers + self.scatters + self.reduces


def _numbers(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.numel() for p in parameters)


def _learnt(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.numel() for p in parameters if p.requires_grad)


def groups_of(learner: Trainable) -> list[tuple[nn.Module, dict[str, nn.Parameter]]]:
    """Modules that are sharded by themselves, the root last, with the trainable parameters of each in the order in
    which `fully_shard` takes them: inner modules first."""
    names = {id(p): name.removeprefix("network.") for name, p in learner.named_parameters()}
    units = learner.units()

    def own(module: nn.Module) -> Iterator[nn.Parameter]:
        for child in module.children():
            if child not in units:
                yield from own(child)
        yield from module.parameters(recurse=False)

    return [(unit, {names[id(p)]: p for p in own(unit) if p.requires_grad}) for unit in (*units, learner)]


class FsdpStrategy(Strategy):
    """Every process has a shard of each tensor."""

    def __init__(self, processes: Processes, replicas: int, compression: GradCompressor, offload: bool = False) -> None:
        """`replicas`: groups of processes that each hold the whole model together (HSDP); between them gradients are
        averaged as in DDP, whatever the `compression` within them. `offload`: shards are in host memory."""
        super().__init__(processes)
        self.compression, self.offload = compression, offload
        if processes.device.type == "cpu":
            map_large_blocks()
        shape, names = ((replicas,), ("replicas",)) if replicas > 1 else ((), ())
        self.mesh = init_device_mesh(
            processes.device.type, (*shape, processes.world // replicas), mesh_dim_names=(*names, "shards")
        )
        self.replicas, self.group = replicas, self.mesh.get_group("shards")
        self.wire = ProcessWire(self.mesh.get_local_rank("shards"), self.mesh.size(-1), self.group)
        self.scatters: list[QuantisedReduceScatter] = []
        """The compressed reduce-scatters of all groups."""
        self._passes, self._deferred = 0, DeferredWeights()

    @property
    def storage(self) -> torch.device:
        return torch.device("cpu") if self.offload else self.processes.device

    def building(self) -> DeferredWeights:
        return self._deferred

    def _made(self, module: nn.Module) -> list[int]:
        """Make what `module` is about to be sharded with, on its device; returns checksums of what is whole."""
        self._deferred.fill(module)
        if not any(map(is_sharded, module.parameters())):
            return checksum(module.to(self.processes.device))
        return checksum(nn.ParameterList(p for p in module.parameters() if not is_sharded(p)))

    def share(self, network: Any, precision: Precision) -> None:
        """Layers are sharded; the rest (embeddings, heads) is whole in every process, because how often a head is read
        depends on a process's own rows."""
        for copy in half_copies(network):
            copy.kept = False
        policy, sums = self._policy(precision), list[int]()
        for unit in network.units():
            sums += self._made(unit)
            fully_shard(unit, mesh=self.mesh, mp_policy=policy)
        self._deferred.fill(network)
        network.to(self.processes.device)
        check_same(sums, self.processes)
        whole = {p for p in network.parameters() if not is_sharded(p)}
        fully_shard(network, mesh=self.mesh, ignored_params=whole)
        register_fsdp_forward_method(network, "encode")

    def _policy(self, precision: Precision) -> MixedPrecisionPolicy:
        computed = precision.gathered(self.processes.device)
        return MixedPrecisionPolicy(computed, reduce_dtype=computed and torch.float32, cast_forward_inputs=False)

    def prepare(self, learner: Trainable) -> None:
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)  # changed by nobody
        for copy in half_copies(learner):
            copy.kept = False
        policy = self._policy(learner.precision)
        kept = CPUOffloadPolicy() if self.offload else OffloadPolicy()
        sums = []
        for unit in learner.units():
            sums += self._made(unit)
            fully_shard(unit, mesh=self.mesh, mp_policy=policy, offload_policy=kept)
        sums += self._made(learner)
        check_same(sums, self.processes)
        self._deferred = DeferredWeights()
        # The root is not kept after its forward pass, although its backward pass follows at once: after a validation
        # nothing else would free it.
        fully_shard(learner, mesh=self.mesh, reshard_after_forward=True, offload_policy=kept)
        for name in learner.readers:
            register_fsdp_forward_method(learner, name)
        self._learner = learner
        self.bytes = PassBytes.of(learner, self.wire.world, self.replicas, self.compression)
        if (method := self.compression.in_shards(learner)) is not None:
            self._compress(method)

    def _compress(self, method: ShardCompression) -> None:
        for module, parameters in groups_of(self.learner):
            if parameters:
                columns = method.columns(parameters, self.wire.world)
                scatter = QuantisedReduceScatter(columns, self.wire, method.feedback, self.processes.device)
                assert isinstance(module, FSDPModule)
                module.set_custom_reduce_scatter(cast(Any, scatter))  # torch's base class is not public
                self.scatters.append(scatter)

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
        square = torch.nn.utils.get_total_norm(gradients).double().square().to(self.processes.device)
        dist.all_reduce(square, group=self.group)
        norm = square.sqrt().float().to(self.storage)
        if (norm.device.type == "cpu" or waits) and not torch.isfinite(norm):
            return norm
        if clip_norm is not None:
            torch._foreach_mul_(gradients, (clip_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def placed(self, value: Any) -> Tensor:
        shape = torch.Size(value.shape)
        rows = rows_of(shape[0], self.mesh.size(-1), self.mesh.get_local_rank("shards"))
        mine = value[rows].to(self.storage, copy=True).contiguous()
        placements = (*[Replicate()] * (self.mesh.ndim - 1), Shard(0))
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(mine, self.mesh, placements, run_check=False, shape=shape, stride=stride)

    def after_step(self, taken: bool, last: bool) -> None:
        scattered = self.wire.sent if self.scatters else self._passes * self.bytes.scatters
        self.sent = self._passes * (self.bytes.gathers + self.bytes.reduces) + scattered
        self.dense = self._passes * self.bytes.dense
        self._passes = self.wire.sent = 0
        if not taken:  # what was sent of residuals is lost with the step
            for scatter in self.scatters:
                scatter.residual.zero_()

    def describe(self) -> list[str]:
        if (method := self.compression.in_shards(self.learner)) is None:
            return []
        columns = [scatter.columns for scatter in self.scatters]
        quantised, all_of_them = (sum(sizes) for sizes in zip(*((c.quantised, c.width) for c in columns), strict=True))
        what = f"shards of {quantised:,} gradients: {method.what}; of {all_of_them - quantised:,}: whole"
        return [f"{what}; weights are gathered uncompressed"]

    def figures(self) -> dict[str, float]:
        if not self.scatters:
            return {}
        norms = [scatter.residual.norm() for scatter in self.scatters if scatter.residual.numel()]
        residual = {"residual_norm": float(torch.stack(norms).norm())} if norms else {}
        return {"compression_ratio": round(self.dense / max(1, self.sent), 2), **residual}

    def state_dict(self) -> dict[str, Any]:
        kept = [scatter.residual for scatter in self.scatters]
        return {"residuals": kept} if any(residual.numel() for residual in kept) else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for scatter, residual in zip(self.scatters, state["residuals"], strict=True):
            scatter.residual.copy_(residual)
