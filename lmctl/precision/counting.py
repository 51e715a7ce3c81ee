"""Counters of low-precision products, and records of low-precision storage, for the precision proof.

Every low-precision product calls `count`; every module with quantised weights has a `Kept`. Inside `as_reference()`
such modules compute in float32, as the reference of the proof.
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
    """Count one product of `kind`; free of cost outside of `counting`."""
    for counter in _COUNTERS:
        counter[kind] += 1


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Context that returns the number of products inside it, by kind."""
    counter: Counter[str] = Counter()
    _COUNTERS.append(counter)
    try:
        yield counter
    finally:
        _COUNTERS.remove(counter)


@contextmanager
def as_reference() -> Iterator[None]:
    """Context in which low-precision modules compute in float32."""
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
    """Quantisation error of one stored weight: energies are sums of squares."""

    format: str
    elements: int
    signal: float
    noise: float

    @classmethod
    def of(cls, format: str, before: torch.Tensor, after: torch.Tensor) -> Kept:
        """From the float32 weight `before` quantisation and the dequantised weight `after` it."""
        signal, noise = (float(x.double().square().sum()) for x in (before, before - after))
        return cls(format, before.numel(), signal, noise)


@dataclass(frozen=True)
class Storage:
    """Summary of all weights of a network that are stored in one format."""

    elements: int
    decibel: float


def storage(network: nn.Module, format: str) -> Storage:
    """How many weights of `network` are stored in `format`, with their signal-to-noise ratio against float weights."""
    found = [getattr(module, "kept", None) for module in network.modules()]
    kept = [one for one in found if isinstance(one, Kept) and one.format == format]
    signal, noise = sum(one.signal for one in kept), sum(one.noise for one in kept)
    decibel = 10 * math.log10(signal / noise) if signal and noise else math.inf
    return Storage(sum(one.elements for one in kept), decibel)
