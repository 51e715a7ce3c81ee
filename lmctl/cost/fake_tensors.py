"""Fake tensors (shape, dtype and device without data), extended to operations that depend on data.

torch's `FakeTensorMode` makes them, and raises for operations that depend on values. A training step has few: whether
gradients are finite, the loss scale, row lengths. Here all numbers are 0, all conditions true, searches find nothing,
and rows have their full length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from lmctl.kernels import backend
from lmctl.precision.emulation import assume_native

aten = torch.ops.aten


@contextmanager
def fake_tensor_mode() -> Iterator[None]:
    """Context manager in which new tensors have no data. Modes entered later see operations earlier."""
    with (
        FakeTensorMode(allow_non_fake_inputs=True, allow_fallback_kernels=False),
        DataDependent(),
        Padding(),
        _patched(),
    ):
        yield


@contextmanager
def _patched() -> Iterator[None]:
    """Context manager that fixes two operations of torch on fake tensors. `Module.to` and similar would swap parameter
    objects, which fails if there are weak references to one, as in the mode itself: their data is replaced instead. And
    `deepcopy` would copy data that does not exist."""
    swap = torch.utils.swap_tensors
    torch.utils.swap_tensors = _fill
    FakeTensor.__deepcopy__ = _copy  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.utils.swap_tensors = swap
        del FakeTensor.__deepcopy__


def _fill(one: Tensor, other: Tensor) -> None:
    one.data = other.data


def _copy(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    if id(tensor) not in memo:
        copy = tensor.detach().clone()
        like = nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy
        memo[id(tensor)] = like
    return memo[id(tensor)]


class Padding(TorchFunctionMode):
    """Implements `pad_packed_sequence`, which runs before any dispatch mode."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch._VF._pad_packed_sequence:
            return func(*args, **(kwargs or {}))
        data, sizes, batch_first, value, positions = args
        with _disable_current_modes():
            rows = int(sizes[0])
        padded = data.new_full((positions, rows, *data.shape[1:]), value)
        padded[: len(sizes)] = data.view(len(sizes), rows, *data.shape[1:])
        return padded.transpose(0, 1) if batch_first else padded, sizes.new_full((rows,), len(sizes))


@contextmanager
def on_gpu() -> Iterator[None]:
    """Context manager in which CPU tensors save for the backward pass what a GPU's kernels save. Less: dropout a byte
    per value instead of a factor, attention no weights, because it recomputes its dropout. More: autocast computes
    powers in float32. (Functions are patched, because torch's modes are inactive while a layer is
    recomputed.)"""
    attention = F.scaled_dot_product_attention

    def attend(*args: Any, dropout_p: float = 0.0, **kwargs: Any) -> Tensor:
        return attention(*args, **kwargs)

    power = torch.pow

    def raised(value: Any, exponent: Any, **kwargs: Any) -> Tensor:
        half = isinstance(value, Tensor) and torch.is_autocast_enabled("cpu")
        return power(value.float() if half else value, exponent, **kwargs)

    functions = mock.patch.multiple(F, dropout=_dropout, scaled_dot_product_attention=attend)
    torch_alone = mock.patch.object(backend, "takes", return_value=False)
    with functions, torch_alone, mock.patch.object(torch, "pow", raised), assume_native():
        yield


def _dropout(value: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return torch.native_dropout(value, p, True)[0] if training and p > 0 else value


class DataDependent(TorchDispatchMode):
    """Dispatch mode that answers operations that depend on data."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ANSWERS:
            return ANSWERS[func](*args, **(kwargs or {}))
        if not func._schema.returns:  # in place on data, of which there is none
            return None
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket is aten.any:
            result.none = True
        return result


def _item(tensor: Tensor) -> bool | int | float:
    if tensor.dtype == torch.bool:
        return not getattr(tensor, "none", False)
    return 0.0 if tensor.is_floating_point() else 0


def _nonzero(tensor: Tensor) -> Tensor:
    return tensor.new_empty((0, tensor.ndim), dtype=torch.int64)


def _bincount(tensor: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    return tensor.new_empty((minlength,), dtype=torch.int64)


def _packed(rows: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    """`pack_padded_sequence` of full rows [R, L, E]. The layers read the batch sizes, so that tensor has data."""
    count, positions = rows.shape[:2] if batch_first else (rows.shape[1], rows.shape[0])
    with _disable_current_modes():
        sizes = torch.full((positions,), count, dtype=torch.int64)
    return rows.new_empty((count * positions, *rows.shape[2:])), sizes


ANSWERS: dict[Any, Callable[..., Any]] = {
    aten._local_scalar_dense.default: _item,
    aten.equal.default: lambda one, other: True,
    aten.nonzero.default: _nonzero,
    aten.bincount.default: _bincount,
    aten._pack_padded_sequence.default: _packed,
}
