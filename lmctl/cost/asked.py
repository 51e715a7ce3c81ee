"""What components may say of their own bytes.

All of it is optional: a component without the method costs what `rehearse.py` sees of it, or what is said here. A
component that stores, keeps or sends something that tensors on paper do not show has one of these methods, and nothing
else has to change.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Protocol

from torch import nn

Shape = tuple[int, ...]


class StoresWeights(Protocol):
    """A precision, of the parameter `name` of the learner (`network.model...`) with this shape."""

    def weight_bytes(self, name: str, shape: Shape) -> float:
        """What is kept of it for products, scales included. Default: what the parameter itself takes."""
        ...

    def master_bytes(self, name: str, shape: Shape) -> float:
        """A second, finer copy that updates go to. Default: 0, the parameter is the master."""
        ...

    def gradient_bytes(self, name: str, shape: Shape) -> float:
        """Default: what the parameter itself takes."""
        ...


class KeepsStates(Protocol):
    """An optimiser, or a precision that has its own updates (which is asked first)."""

    def state_bytes(self, name: str, shape: Shape) -> float:
        """What is kept of a parameter from step to step. Default: what its first step makes."""
        ...


class SendsGradients(Protocol):
    """A compression, of all parameters that learn."""

    def wire_bytes(self, shapes: Mapping[str, Shape], world: int) -> float:
        """What one of `world` processes sends in a step. Default: `wire.ring` of the gradients."""
        ...

    def feedback_bytes(self, shapes: Mapping[str, Shape], world: int) -> float:
        """What one process keeps of gradients it has not sent. Default: 0."""
        ...


def says(component: object, method: str) -> Any:
    """The method, or None."""
    return getattr(component, method, None)


def parameter_bytes(component: object, method: str, parameters: Mapping[str, nn.Parameter]) -> int | None:
    """The sum of what `component.method(name, shape)` says of each parameter; None if it has no such method."""
    say = says(component, method)
    if say is None:
        return None
    return round(sum(say(name, tuple(parameter.shape)) for name, parameter in parameters.items()))


def shapes_of(parameters: Mapping[str, nn.Parameter]) -> dict[str, Shape]:
    return {name: tuple(parameter.shape) for name, parameter in parameters.items()}


def values(parameters: Mapping[str, nn.Parameter]) -> int:
    """How many numbers they are."""
    return sum(prod(parameter.shape) for parameter in parameters.values())
