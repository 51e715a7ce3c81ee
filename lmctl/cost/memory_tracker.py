"""Tracking tensor memory with a dispatch mode while unmodified code runs.

Every tensor that an operation returns passes through `MemoryTracker`; its storage is counted until it is freed (tensors
that share one storage count once). Which operations run, and in which order their results are freed, is decided by
autograd and by the modules themselves, so nothing about an architecture has to be known here. On tensors without data
(`torch._subclasses.FakeTensorMode`) this takes no memory and little time.

Temporary allocations inside a kernel are not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lmctl.cost.heap import Trace
from lmctl.train.precision_proof import HALF, CountDtypes

WEIGHTS, GRADIENTS, STATES, FEEDBACK = "weights", "gradients", "optimiser states", "error feedback"
ACTIVATIONS, LOGITS, ROWS, PASSING = "activations", "logits", "rows", "passing tensors"
"""Kinds of tensors: saved for the backward pass; as wide as the vocabulary; inputs; anything else."""

LSTM_WORKSPACE = 15.5
"""float32 values per row, position and hidden unit that oneDNN saves of an LSTM layer for the backward pass. The only
architecture-specific number: on fake tensors torch reports 0. Measured 15.3 to 16.5 (oneDNN in torch 2.13)."""


@dataclass(frozen=True)
class Peak:
    """Memory at the moment of its maximum."""

    total: int = 0
    by: dict[str, int] = field(default_factory=dict)
    resting: int = 0
    """Bytes that were alive at the last `restart`."""
    trace: Trace = ()
    """Blocks that were made and freed since then, in order."""


class MemoryTracker(TorchDispatchMode):
    """Dispatch mode that counts every storage from allocation to free."""

    def __init__(self, vocabulary: int) -> None:
        """Floating-point tensors of two or more dimensions, the last of them `vocabulary`, are logits."""
        super().__init__()
        self.vocabulary = vocabulary
        self.peak = Peak()
        self.most: dict[str, int] = {}
        """Maximum bytes of each kind at any time."""
        self._now: dict[str, int] = {}
        self._total = self._resting = 0
        self._kind: dict[int, str] = {}
        self.products: set[tuple[Any, ...]] = set()
        """Matrix products with half-precision operands: operation and shapes."""
        self._trace: list[tuple[int, int]] = []
        self._storages: dict[int, tuple[Any, int]] = {}
        """By key, a weak reference to each live storage, and its bytes."""
        self._birth = PASSING

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.mkldnn_rnn_layer.default and not out[3].numel():
            out = (*out[:3], self._workspace(out[0], training=args[-1]))
        if func._schema.name in CountDtypes.PRODUCTS:
            operands = [value for value in args if isinstance(value, Tensor)]
            if any(value.dtype in HALF for value in operands):
                self.products.add((func, *(value.shape for value in operands)))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, Tensor):
                self._track(value)
        return out

    def _workspace(self, hidden: Tensor, training: bool) -> Tensor:
        """What oneDNN saves of one LSTM layer whose hidden states [L, R, H] are `hidden`."""
        size = int(LSTM_WORKSPACE * hidden.numel() * 4) if training else 0
        return torch.empty(size, dtype=torch.uint8, device=hidden.device)

    def _track(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._kind:
            return
        kind = LOGITS if self._birth == PASSING and self._is_logits(tensor) else self._birth
        self._kind[key], self._storages[key] = kind, (weakref.ref(storage), size)
        self._add(kind, size)
        self._trace.append((key, size))
        weakref.finalize(storage, self._free, key).atexit = False
        if self._total > self.peak.total:
            self._peak()

    def _peak(self) -> None:
        self.peak = Peak(self._total, dict(self._now))

    def _is_logits(self, tensor: Tensor) -> bool:
        return tensor.ndim > 1 and tensor.shape[-1] == self.vocabulary and tensor.is_floating_point()

    def _free(self, key: int) -> None:
        _, size = self._storages.pop(key)
        self._add(self._kind.pop(key), -size)
        self._trace.append((key, 0))

    def _add(self, kind: str, size: int) -> None:
        self._total += size
        self._now[kind] = self._now.get(kind, 0) + size
        self.most[kind] = max(self.most.get(kind, 0), self._now[kind])

    def seen(self) -> Peak:
        """The peak since the last `restart`."""
        return replace(self.peak, resting=self._resting, trace=tuple(self._trace))

    def recount(self) -> None:
        """Update storages that were resized since their creation, which no operation reports."""
        for key, (reference, before) in list(self._storages.items()):
            storage = reference()
            if storage is not None and storage.nbytes() != before:
                self._add(self._kind[key], -before)
                self._add(self._kind[key], storage.nbytes())
                self._trace += [(key, 0), (key, storage.nbytes())]
                self._storages[key] = (reference, storage.nbytes())

    def call(self, tensor: Tensor, kind: str) -> Tensor:
        """Assign the storage of `tensor` to this kind, if it has none in particular, or is an activation."""
        key = tensor.untyped_storage()._cdata
        before = self._kind.get(key)
        if before in (PASSING, ACTIVATIONS):
            size = self._storages[key][1]
            self._add(before, -size)
            self._add(kind, size)
            self._kind[key] = kind
        return tensor

    def now(self, kind: str) -> int:
        """Current bytes of this kind."""
        return self._now.get(kind, 0)

    def restart(self) -> None:
        """Reset the peak."""
        self.recount()
        self._peak()
        self.most = dict(self._now)
        self._trace.clear()
        self._resting = self._total

    @contextmanager
    def born(self, kind: str) -> Iterator[None]:
        """Context manager in which new storages are of this kind."""
        before, self._birth = self._birth, kind
        try:
            yield
        finally:
            self._birth = before

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Context manager in which tensors saved by autograd for the backward pass become activations."""

        def pack(tensor: Tensor) -> Tensor:
            return self.call(tensor, ACTIVATIONS)

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield

    def follow(self, parameters: Iterable[nn.Parameter]) -> None:
        """Classify the gradients of `parameters` as they are accumulated."""

        def hook(parameter: Tensor) -> None:
            if parameter.grad is not None:
                self.call(parameter.grad, GRADIENTS)

        for parameter in parameters:
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(hook)
