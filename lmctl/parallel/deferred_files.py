"""safetensors files whose large tensors are read when they are needed, for transformers' `from_pretrained`.

transformers takes slices of all tensors, which cost nothing, and makes tensors of them in threads. Here it makes them
in its own thread, and what a slice gives is a tensor without memory (`deferred_weights.py`). So renamed keys, tied
weights, heads that are new or left out, number formats and hub ids remain its own business.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor

KINDS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
IN_ONE_THREAD = "HF_DEACTIVATE_ASYNC_LOAD"
"""transformers' variable for that."""


class Defer(Protocol):
    """Makes a tensor of this shape and dtype without memory, which `fill` fills in place when it is needed."""

    def __call__(self, shape: tuple[int, ...], dtype: torch.dtype, fill: Callable[[Tensor], Any]) -> Tensor: ...


@contextmanager
def deferred_files(defer: Defer, least: int) -> Iterator[None]:
    """Context in which transformers reads matrices of `least` numbers or more by `defer`."""
    from transformers import modeling_utils

    before, opened = os.environ.get(IN_ONE_THREAD), modeling_utils.safe_open
    os.environ[IN_ONE_THREAD] = "1"
    modeling_utils.safe_open = partial(_File, defer, least)
    try:
        yield
    finally:
        modeling_utils.safe_open = opened
        os.environ.pop(IN_ONE_THREAD)
        if before is not None:
            os.environ[IN_ONE_THREAD] = before


class _File:
    """What transformers asks of an open file."""

    def __init__(self, defer: Defer, least: int, path: str, *how: Any, **more: Any) -> None:
        self._defer, self._least, self._path = defer, least, path
        self._file = safe_open(path, *how, **more)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)

    def keys(self) -> list[str]:
        return list(self._file.keys())

    def metadata(self) -> Any:
        return self._file.metadata()

    def get_tensor(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def get_slice(self, name: str) -> Any:
        found = self._file.get_slice(name)
        shape, kind = tuple(found.get_shape()), found.get_dtype()
        if kind not in KINDS or len(shape) < 2 or math.prod(shape) < self._least:
            return found
        return _Slice(found, partial(self._defer, shape, KINDS[kind], partial(_read, path=self._path, name=name)))


class _Slice:
    """A tensor of a file; without memory in the thread that opened it."""

    def __init__(self, found: Any, make: Callable[[], Tensor]) -> None:
        self._found, self._make, self._thread = found, make, threading.get_ident()

    def get_shape(self) -> Any:
        return self._found.get_shape()

    def get_dtype(self) -> Any:
        return self._found.get_dtype()

    def __getitem__(self, rows: Any) -> Tensor:
        if threading.get_ident() == self._thread:
            return self._make()[rows]
        tensor: Tensor = self._found[rows]
        return tensor


def _read(target: Tensor, path: str, name: str) -> None:
    with safe_open(path, "pt") as file:
        target.copy_(file.get_tensor(name))
