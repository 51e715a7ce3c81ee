"""Layout of all gradients in two flat vectors: one is compressed, one is sent uncompressed.

Parts have the name of their parameter and the order of the network's parameter list, so that a residual fits after a
resume, whatever buckets DDP makes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from lmctl.core.errors import ConfigError


@dataclass(frozen=True)
class Part:
    """The slice of a parameter in its flat vector."""

    name: str
    parameter: nn.Parameter
    start: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.parameter.shape)

    @property
    def stop(self) -> int:
        return self.start + self.parameter.numel()

    def of(self, vector: Tensor) -> Tensor:
        """The values of this parameter [n], a view."""
        return vector[self.start : self.stop]


@dataclass(frozen=True)
class GradientLayout:
    """The trainable parameters, concatenated in two flat vectors; at least one parameter is compressed."""

    compressed: list[Part]
    whole: list[Part]

    @property
    def parts(self) -> list[Part]:
        return [*self.compressed, *self.whole]

    @property
    def device(self) -> torch.device:
        return self.compressed[0].parameter.device

    def flatten(self, scale: float) -> tuple[Tensor, Tensor]:
        """Copies of all gradients, divided by `scale`: float32 [n] and [m]. A missing gradient is zero."""
        return self._flat(self.compressed, scale), self._flat(self.whole, scale)

    def unflatten(self, compressed: Tensor, whole: Tensor, scale: float) -> None:
        """Set the gradients to both vectors times `scale`; views without a copy where gradients are float32."""
        for parts, vector in ((self.compressed, compressed.mul_(scale)), (self.whole, whole.mul_(scale))):
            for part in parts:
                part.parameter.grad = part.of(vector).view(part.shape).to(part.parameter.dtype)

    def _flat(self, parts: list[Part], scale: float) -> Tensor:
        vector = torch.zeros(size(parts), device=self.device)
        for part in parts:
            if part.parameter.grad is not None:
                part.of(vector).copy_(part.parameter.grad.reshape(-1))
        return vector.div_(scale)


def size(parts: Sequence[Part]) -> int:
    """Number of values of consecutive parts."""
    return parts[-1].stop - parts[0].start if parts else 0


PIECE = 1 << 24
"""Values compressed at a time, about: limits the temporary memory, besides gradients and residuals, to some 100 MB."""


def cut(parts: Sequence[Part], most: int = PIECE) -> list[list[Part]]:
    """Split into pieces: consecutive parts with at most `most` values together (a single part may have more)."""
    pieces: list[list[Part]] = []
    for part in parts:
        if not pieces or part.stop - pieces[-1][0].start > most:
            pieces.append([])
        pieces[-1].append(part)
    return pieces


def layout_of(
    learner: nn.Module, dense_below: int, exclude: Iterable[str], pays: Callable[[tuple[int, ...]], bool]
) -> GradientLayout:
    """Decide what is compressed. Sent uncompressed: vectors, tensors of fewer than `dense_below` values, names that
    match a pattern of `exclude`, and shapes for which `pays` is false."""
    chosen: tuple[list[Part], list[Part]] = ([], [])
    small = sent_whole(learner, dense_below, exclude, pays)
    for name, parameter in _trained(learner).items():
        parts = chosen[name in small]
        parts.append(Part(name, parameter, size(parts)))
    return GradientLayout(*chosen)


def sent_whole(
    learner: nn.Module, dense_below: int, exclude: Iterable[str], pays: Callable[[tuple[int, ...]], bool]
) -> set[str]:
    """The names of the parameters that are sent uncompressed (see `layout_of`); ConfigError if it is all of them."""
    named, exclude = _trained(learner), list(exclude)
    unused = [pattern for pattern in exclude if not any(fnmatchcase(name, pattern) for name in named)]
    if unused:
        raise ConfigError(
            f"compression.exclude: no parameter's name fits {unused[0]!r}",
            f"names look like {next(iter(named))}; * stands for anything",
        )
    found = set()
    for name, parameter in named.items():
        excluded = any(fnmatchcase(name, pattern) for pattern in exclude)
        if parameter.ndim < 2 or parameter.numel() < dense_below or excluded or not pays(tuple(parameter.shape)):
            found.add(name)
    if len(found) == len(named):
        largest = max((math.prod(p.shape) for p in named.values() if p.ndim > 1), default=0)
        raise ConfigError(
            f"compression: every tensor of this model would be sent whole (its largest matrix has {largest:,} values)",
            "lower compression.dense_below, or compression=none",
        )
    return found


def _trained(learner: nn.Module) -> dict[str, nn.Parameter]:
    return {n.removeprefix("network."): p for n, p in learner.named_parameters() if p.requires_grad}


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a tensor reshaped to a matrix."""
    return shape[0], math.prod(shape[1:])
