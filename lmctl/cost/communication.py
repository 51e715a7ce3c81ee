"""Network traffic of a step."""

from __future__ import annotations

from dataclasses import dataclass

from lmctl.core.collectives import Collective, Link, ddp
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
    """Seconds per step over the assumed link, without overlap with computation."""
    collectives: tuple[Collective, ...] = ()
    """The operations that it is made of."""


def link_of(bandwidth_gbps: float, latency_us: float) -> Link:
    """The link that `lmctl plan` assumes between processes."""
    return Link(bandwidth_gbps * GIGABIT, latency_us * 1e-6)


def wire_of(run: Checked, rehearsal: Rehearsal, link: Link) -> Communication:
    """Traffic as counted by the exchange of the rehearsal."""
    simulated = run.world == 1 and rehearsal.dense > 0
    parts = _collectives(run, rehearsal) if rehearsal.sent else ()
    seconds = sum(part.seconds(link) for part in parts)
    return Communication(run.workers, simulated, rehearsal.sent, rehearsal.dense, seconds, parts)


def _collectives(run: Checked, rehearsal: Rehearsal) -> tuple[Collective, ...]:
    if rehearsal.collectives:
        return rehearsal.collectives
    every, messages = run.plan.runner.every, 2.0 * (run.workers - 1)
    if every > 1:
        what = f"what {every} steps have changed, every {every} steps; per step"
        return (Collective("exchange", what, rehearsal.sent, messages / every, None),)
    if run.plan.compression.sends or run.world == 1:
        what = "compressed gradients" if rehearsal.sent < rehearsal.dense else "gradients"
        return (Collective("exchange", what, rehearsal.sent, messages, None),)
    gradients = rehearsal.sent * run.workers / (2 * (run.workers - 1))
    return ddp(gradients, run.workers)
