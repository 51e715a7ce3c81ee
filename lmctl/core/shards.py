"""Sharded tensors (torch's DTensor): this process's rows of one, and which rows these are.

FSDP shards a tensor [N, ...] by its first dimension, as `torch.chunk` does: of S shards each has ceil(N / S) rows, the
last ones fewer or none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

if TYPE_CHECKING:
    from torch import Tensor


def is_sharded(value: Any) -> TypeGuard[Any]:
    """Whether `value` is a tensor of which this process has a part."""
    import torch

    if not isinstance(value, torch.Tensor) or type(value) in (torch.Tensor, torch.nn.Parameter):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def local(tensor: Tensor) -> Tensor:
    """What this process has of `tensor`, detached and in the same memory: its rows, or all of it."""
    return tensor.detach().to_local() if is_sharded(tensor) else tensor.detach()


def whole(tensor: Tensor) -> Tensor:
    """All of `tensor`, detached. A collective operation for a sharded one."""
    return tensor.detach().full_tensor() if is_sharded(tensor) else tensor.detach()


class ShardPlace(NamedTuple):
    """Which shard this process has."""

    shards: int
    shard: int
    replica: int
    """0 in one process that has it, more in others that have the same one (HSDP)."""


def place_of(tensor: Any) -> ShardPlace:
    """The shard of a sharded tensor in this process."""
    mesh, (*outer, _) = tensor.device_mesh, tensor.placements
    replica = mesh.get_local_rank(0) if outer else 0
    return ShardPlace(mesh.size(len(outer)), mesh.get_local_rank(len(outer)), replica)


def rows_of(count: int, shards: int, shard: int) -> slice:
    """Which of `count` rows are in `shard` of `shards`."""
    each = -(-count // shards)
    return slice(min(shard * each, count), min((shard + 1) * each, count))
