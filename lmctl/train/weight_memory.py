"""Memory of weights, gradients and optimiser states, in bytes, counted from the actual tensors; of shards where this
process has no more.

Embeddings, heads, norms and biases stay in float in most precisions, and small tensors are left out of 8-bit states. In
a small model these dominate, so a constant per parameter would be wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from lmctl.core.shards import local


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """All tensors in nested mappings, lists and tuples."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from tensors_in(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from tensors_in(value)


def size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of `tensors`, as far as this process has them; shared memory counts once."""
    mine = (local(tensor) for tensor in tensors)
    places = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in mine if tensor.numel()}
    return sum(places.values())


def weight_bytes(network: nn.Module) -> int:
    """Bytes of the weights as stored; a stored weight counts by its buffers."""
    return size_of(network.state_dict().values())


def bytes_per_parameter(learner: nn.Module, network: nn.Module, optimizer: Optimizer) -> dict[str, float]:
    """Bytes per parameter of weights, gradients (if present) and optimiser states, each divided by the number of all
    parameters, frozen ones included."""
    parameters = sum(p.numel() for p in network.parameters())
    parts = {
        "weights": weight_bytes(network),
        "gradients": sum(local(p).nbytes for p in learner.parameters() if p.requires_grad),
        "optimiser": size_of(tensors_in(optimizer.state_dict())),
    }
    return {name: round(size / parameters, 3) for name, size in (parts | {"total": sum(parts.values())}).items()}
