"""Initial weights that are made or read when they are needed, one tensor at a time, with the bits of an ordinary start.

While a network is built or loaded, its large tensors get no memory (torch's meta device). What fills them is recorded
instead, with the state of the random generator before it, which then moves on as if the numbers had been used.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from lmctl.parallel.deferred_files import deferred_files

LEAST = 1 << 10
"""Numbers in a matrix that is worth deferring. Vectors are not: they are small, and libraries change their length."""
EMPTY = torch.ops.aten.empty.memory_format
LIKE = (torch.ops.aten.empty_like.default, torch.ops.aten.new_empty.default)
CONVERT = torch.ops.aten._to_copy.default


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


@dataclass(frozen=True)
class _Recipe:
    """How a deferred tensor is made, as it was at some time."""

    fills: tuple[_Fill, ...]
    dtype: torch.dtype
    numbers: int
    """In its storage."""
    size: torch.Size
    stride: tuple[int, ...]
    offset: int

    def made(self) -> Tensor:
        """Its contents, on the CPU."""
        made = torch.empty(self.numbers, dtype=self.dtype)
        with torch.random.fork_rng(devices=[]):
            for fill in self.fills:
                others, named = tree_map(_made, (fill.others, fill.named))
                if fill.generator is not None:
                    torch.set_rng_state(fill.generator)
                fill.act(made.as_strided(fill.size, fill.stride, fill.offset), *others, **named)
        return made.as_strided(self.size, self.stride, self.offset)


def _made(value: Any) -> Any:
    return value.made() if isinstance(value, _Recipe) else value


class DeferredWeights(TorchDispatchMode):
    """Context in which a network is built on the CPU, or loaded by transformers, without most of its memory; `fill`
    makes its tensors later."""

    def __init__(self) -> None:
        super().__init__()
        self._fills: dict[int, list[_Fill]] = {}
        self._kept: list[Any] = []
        """Storages, whose addresses name them."""
        self._patches = ExitStack()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is EMPTY or (func in LIKE and args[0].is_meta):
            return self._empty(func, args, kwargs)
        if func is CONVERT and self._stays(args[0], torch.device(kwargs.get("device") or "cpu")):
            return self._converted(args[0], kwargs.get("dtype") or args[0].dtype)
        if func.is_view or not any(map(self._deferred, tree_leaves((args, kwargs)))):
            return func(*args, **kwargs)
        if func._schema.is_mutable and self._deferred(args[0]):
            self._record(func, args[0], args[1:], kwargs, torch.Tag.nondeterministic_seeded in func.tags)
            return args[0]
        return func(*tree_map(self._real, args), **tree_map(self._real, kwargs))

    def _empty(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        """A new tensor, which is deferred if it is large, or like another deferred one."""
        outline: Tensor = func(*args, **kwargs | {"device": "meta"})
        device = torch.device(kwargs.get("device") or ("cpu" if func is EMPTY else "meta"))
        large = outline.dtype.is_floating_point and outline.ndim > 1 and outline.numel() >= LEAST
        if large if device.type == "cpu" else func in LIKE and self._deferred(args[0]):
            return self._new(outline, [])
        made: Tensor = func(*args, **kwargs)
        return made

    def _new(self, outline: Tensor, fills: list[_Fill]) -> Tensor:
        storage = outline.untyped_storage()
        self._kept.append(storage)
        self._fills[storage._cdata] = fills
        return outline

    def _stays(self, source: Tensor, device: torch.device) -> bool:
        """Whether a copy of `source` is deferred: if it is, or is moved to where deferred ones are."""
        return device.type in ("cpu", "meta") if self._deferred(source) else device.type == "meta" != source.device.type

    def _converted(self, source: Tensor, dtype: torch.dtype) -> Tensor:
        """A deferred copy."""
        storage = source.untyped_storage()
        whole = source.is_contiguous() and source.numel() * source.element_size() == storage.nbytes()
        if self._deferred(source) and dtype == source.dtype and whole:
            return self._new(torch.empty_like(source), list(self._fills[storage._cdata]))
        copy = self._new(torch.empty_like(source, dtype=dtype, device="meta"), [])
        self._record(Tensor.copy_, copy, (source,), {}, drawn=False)
        return copy

    def __enter__(self) -> DeferredWeights:
        self._patches.enter_context(deferred_files(self._from_file, LEAST))
        # torch draws these until all are within bounds, and not at all on the meta device: here it is one operation.
        self._truncated = nn.init._no_grad_trunc_normal_
        nn.init._no_grad_trunc_normal_ = self._trunc_normal
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        nn.init._no_grad_trunc_normal_ = self._truncated
        self._patches.close()

    def _from_file(self, shape: tuple[int, ...], dtype: torch.dtype, fill: Callable[[Tensor], Any]) -> Tensor:
        with _disable_current_modes():
            outline = self._new(torch.empty(shape, dtype=dtype, device="meta"), [])
            self._record(fill, outline, (), {}, drawn=False)
        return outline

    def _trunc_normal(self, tensor: Tensor, *others: Any, **named: Any) -> Tensor:
        if not self._deferred(tensor):
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
        others, named = tree_map(self._as_it_is, (others, named))
        fill = _Fill(func, target.size(), target.stride(), int(target.storage_offset()), others, named, state)
        self._fills[target.untyped_storage()._cdata].append(fill)

    def _deferred(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.is_meta and value.untyped_storage()._cdata in self._fills

    def _as_it_is(self, value: Any) -> Any:
        """A value that does not change with the tensor that it was."""
        if self._deferred(value):
            return self._recipe(value)
        return value.clone() if isinstance(value, Tensor) else value

    def _real(self, value: Any) -> Any:
        return self.whole(value) if self._deferred(value) else value

    def _recipe(self, tensor: Tensor) -> _Recipe:
        storage = tensor.untyped_storage()
        numbers = storage.nbytes() // tensor.element_size()
        place = tensor.size(), tensor.stride(), int(tensor.storage_offset())
        return _Recipe(tuple(self._fills[storage._cdata]), tensor.dtype, numbers, *place)

    def whole(self, tensor: Tensor) -> Tensor:
        """The contents of a deferred tensor, on the CPU."""
        return self._recipe(tensor).made()

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
