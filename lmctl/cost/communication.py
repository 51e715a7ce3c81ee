"""What crosses the network in a step."""

from __future__ import annotations

from dataclasses import dataclass

from lmctl.cost.rehearsal import Rehearsal
from lmctl.cost.validate import Checked

GIGABIT = 1e9 / 8
"""Bytes per second."""


@dataclass(frozen=True)
class Communication:
    """The traffic of one worker."""

    workers: int
    simulated: bool
    """The workers are played by one process, and nothing is really sent."""
    bytes: int
    """Sent in a step, once any warm-up of the compression is over."""
    dense: int
    """What would be sent in a step in float32, uncompressed."""
    seconds: float
    """Per step, at the bandwidth that is assumed, if nothing else happens meanwhile."""


def wire_of(run: Checked, rehearsal: Rehearsal, bandwidth_gbps: float) -> Communication:
    """Traffic as the exchange of the rehearsal counted it."""
    simulated = run.world == 1 and rehearsal.dense > 0
    seconds = rehearsal.sent / (bandwidth_gbps * GIGABIT)
    return Communication(run.workers, simulated, rehearsal.sent, rehearsal.dense, seconds)
