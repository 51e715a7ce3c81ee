"""Network traffic of a step."""

from __future__ import annotations

from dataclasses import dataclass

from lmctl.cost.rehearsal import Rehearsal
from lmctl.cost.validate import Checked

GIGABIT = 1e9 / 8
"""Bytes per second of 1 Gbit/s."""


@dataclass(frozen=True)
class Communication:
    """The traffic of one worker."""

    workers: int
    simulated: bool
    """Whether the workers are simulated in one process, and nothing is really sent."""
    bytes: int
    """Bytes sent per step, after any warm-up of the compression."""
    dense: int
    """Bytes sent per step in float32 without compression."""
    seconds: float
    """Seconds per step at the assumed bandwidth, without overlap with computation."""


def wire_of(run: Checked, rehearsal: Rehearsal, bandwidth_gbps: float) -> Communication:
    """Traffic as counted by the exchange of the rehearsal."""
    simulated = run.world == 1 and rehearsal.dense > 0
    seconds = rehearsal.sent / (bandwidth_gbps * GIGABIT)
    return Communication(run.workers, simulated, rehearsal.sent, rehearsal.dense, seconds)
