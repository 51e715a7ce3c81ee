"""Random initial weights that are made when they are needed, one tensor at a time, with the bits of an ordinary start.

While a network is built, its large tensors get no memory (torch's meta device). What fills them is recorded instead,
with the state of the random generator before it, which then moves on as if the numbers had been used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

LEAST = 1 << 10
"""Numbers in a matrix that is worth deferring. Vectors are not: they are small, and libraries change their length."""
EMPTY = torch.ops.aten.empty.memory_format
LIKE = (torch.ops.aten.empty_like.default, torch.ops.aten.new_empty.default)


class _Fill(NamedTuple):
    """One operation that changes a deferred tensor, or a view of it, in place."""

    act: Callable[..., Any]
    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    others: tuple[Any, ...]
    named: dict[str, Any]
    generator: Tensor | None
    """State of the random generator, if it draws from it."""


class DeferredWeights(TorchDispatchMode):
    """Context in which a network is built on the CPU without most of its memory; `fill` makes its tensors later."""

    def __init__(self) -> None:
        super().__init__()
        self._fills: dict[int, list[_Fill]] = {}
        self._kept: list[Any] = []
        """Storages, whose addresses name them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not any(_deferred(leaf) for leaf in tree_leaves((args, kwargs))):
            return self._made(func, args, kwargs)
        if func.is_view or func in LIKE:
            return func(*args, **kwargs)
        if func._schema.is_mutable and _deferred(args[0]):
            drawn = torch.Tag.nondeterministic_seeded in func.tags
            others, named = tree_map(self._real, (args[1:], kwargs))
            self._record(func, args[0], others, named, drawn)
            return args[0]
        return func(*tree_map(self._real, args), **tree_map(self._real, kwargs))

    def _made(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What an operation without deferred tensors returns; a large new tensor is deferred."""
        if func is EMPTY and torch.device(kwargs.get("device") or "cpu").type == "cpu":
            dtype = kwargs.get("dtype") or torch.get_default_dtype()
            if dtype.is_floating_point and len(args[0]) > 1 and torch.Size(args[0]).numel() >= LEAST:
                return func(*args, **kwargs | {"device": "meta"})
        return func(*args, **kwargs)

    def __enter__(self) -> DeferredWeights:
        # torch draws these until all are within bounds, and not at all on the meta device: here it is one operation.
        self._truncated = nn.init._no_grad_trunc_normal_
        nn.init._no_grad_trunc_normal_ = self._trunc_normal
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        nn.init._no_grad_trunc_normal_ = self._truncated

    def _trunc_normal(self, tensor: Tensor, *others: Any, **named: Any) -> Tensor:
        if not _deferred(tensor):
            return self._truncated(tensor, *others, **named)
        with _disable_current_modes():
            self._record(self._truncated, tensor, others, named, drawn=True)
        return tensor

    def _record(self, func: Any, target: Tensor, others: tuple[Any, ...], named: dict[str, Any], drawn: bool) -> None:
        """Record an operation, and let one that draws random numbers draw as many."""
        state = None
        if drawn:
            state = torch.get_rng_state()
            func(torch.empty_strided(target.size(), target.stride(), dtype=target.dtype), *others, **named)
        storage = target.untyped_storage()
        if storage._cdata not in self._fills:
            self._kept.append(storage)
        fill = _Fill(func, target.size(), target.stride(), int(target.storage_offset()), others, named, state)
        self._fills.setdefault(storage._cdata, []).append(fill)

    def _real(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.whole(value) if value.is_meta else value.clone()
        return value

    def whole(self, tensor: Tensor) -> Tensor:
        """The contents of a deferred tensor, on the CPU."""
        storage = tensor.untyped_storage()
        made = torch.empty(storage.nbytes() // tensor.element_size(), dtype=tensor.dtype)
        with torch.random.fork_rng(devices=[]):
            for fill in self._fills.get(storage._cdata, []):
                if fill.generator is not None:
                    torch.set_rng_state(fill.generator)
                fill.act(made.as_strided(fill.size, fill.stride, fill.offset), *fill.others, **fill.named)
        return made.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())

    @torch.no_grad()
    def fill(self, module: nn.Module) -> None:
        """Make all deferred tensors of `module`; those that it has in several places stay the same."""
        made: dict[int, Tensor] = {}
        for inner in module.modules():
            for name, parameter in list(inner._parameters.items()):
                if parameter is not None and parameter.is_meta:
                    if id(parameter) not in made:
                        made[id(parameter)] = nn.Parameter(self.whole(parameter), parameter.requires_grad)
                    setattr(inner, name, made[id(parameter)])
            for name, buffer in list(inner._buffers.items()):
                if buffer is not None and buffer.is_meta:
                    inner._buffers[name] = made.setdefault(id(buffer), self.whole(buffer))


def _deferred(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_meta
