"""Low-precision products and low-precision storage, counted where they happen, for the run's self-proof.

Whatever multiplies in a low precision calls `count`; whatever keeps weights in one leaves a `Kept` on its module.
Inside `as_reference()` such modules compute in float32 instead, which is what the proof compares with.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

_COUNTERS: list[Counter[str]] = []
_reference = False


def count(kind: str) -> None:
    """One more product of `kind`; costs nothing while nobody counts."""
    for counter in _COUNTERS:
        counter[kind] += 1


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """The products done inside, by kind."""
    counter: Counter[str] = Counter()
    _COUNTERS.append(counter)
    try:
        yield counter
    finally:
        _COUNTERS.remove(counter)


@contextmanager
def as_reference() -> Iterator[None]:
    """Inside it, modules of low precision compute in float32."""
    global _reference
    before, _reference = _reference, True
    try:
        yield
    finally:
        _reference = before


def in_reference() -> bool:
    return _reference


@dataclass(frozen=True)
class Kept:
    """What became of a weight when it was stored: energies are sums of squares."""

    format: str
    elements: int
    signal: float
    noise: float

    @classmethod
    def of(cls, format: str, before: torch.Tensor, after: torch.Tensor) -> Kept:
        """`before` the weight in float32, `after` what its stored form stands for."""
        signal, noise = (float(x.double().square().sum()) for x in (before, before - after))
        return cls(format, before.numel(), signal, noise)


@dataclass(frozen=True)
class Storage:
    """All weights of a network that are kept in one format."""

    elements: int
    decibel: float


def storage(network: nn.Module, format: str) -> Storage:
    """How many weights of `network` are kept in `format`, and how near they are to the float weights they came from."""
    found = [getattr(module, "kept", None) for module in network.modules()]
    kept = [one for one in found if isinstance(one, Kept) and one.format == format]
    signal, noise = sum(one.signal for one in kept), sum(one.noise for one in kept)
    decibel = 10 * math.log10(signal / noise) if signal and noise else math.inf
    return Storage(sum(one.elements for one in kept), decibel)
