"""What crosses the network in a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from lmctl.cost.asked import parameter_bytes, says, shapes_of
from lmctl.cost.legal import Checked

GIGABIT = 1e9 / 8
"""Bytes per second."""


@dataclass(frozen=True)
class Wire:
    """The traffic of one process."""

    processes: int
    bytes: int
    """Sent in a step."""
    dense: int
    """What would be sent in a step without compression."""
    seconds: float
    """Per step, at the bandwidth that is assumed, if nothing else happens meanwhile."""


def ring(size: float, world: int) -> int:
    """Bytes that one of `world` processes sends so that all have the sum of `size` bytes (ring all-reduce: Patarasu
    and Yuan 2009, "Bandwidth optimal all-reduce algorithms", section 3)."""
    return round(2 * (world - 1) / world * size)


def wire_of(run: Checked, parameters: Mapping[str, nn.Parameter], bandwidth_gbps: float) -> Wire:
    """Traffic of the gradients of `parameters`."""
    gradients = parameter_bytes(run.plan.precision, "gradient_bytes", parameters)
    if gradients is None:
        gradients = sum(parameter.nbytes for parameter in parameters.values())
    dense = ring(gradients, run.world)
    say = says(getattr(run.plan, "compression", None), "wire_bytes")
    sent = dense if say is None or run.world == 1 else round(say(shapes_of(parameters), run.world))
    return Wire(run.world, sent, dense, sent / (bandwidth_gbps * GIGABIT))
