"""A few real steps, so that speed and memory need not be predicted.

The run's own network, objectives, precision and optimiser, on the rows that are known or their stand-ins, in this
process alone: of several processes, one's share of the rows. Speed is that of the steps; validation, checkpoints and
the network between processes come on top.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from lmctl.config.schema import Budget, Evaluation
from lmctl.core.errors import LmctlError
from lmctl.cost.known import look
from lmctl.cost.legal import Checked
from lmctl.run.processes import Processes
from lmctl.run.runner import Runner
from lmctl.run.summary import peak_memory
from lmctl.runner.places import Cpu, Gpu

WARMING, COUNTED = 3, 5
"""Steps."""


@dataclass(frozen=True)
class Measured:
    """What came out, of one process."""

    steps: int
    seconds_per_step: float
    tokens_per_second: float
    peak: int
    """Bytes; on a CPU the largest resident set of this process so far, the planning included."""


def measure(run: Checked) -> Measured:
    """WARMING and COUNTED steps of `run`."""
    plan, on_cpu = run.plan, run.device.type == "cpu"
    size, tokens = plan.batch.size, plan.batch.tokens
    batch = replace(
        plan.batch, size=None if size is None else size // run.world, tokens=tokens and max(tokens // run.world, 1)
    )
    tasks = {name: replace(task, augment=None) for name, task in plan.mix.tasks.items()}
    here = replace(
        plan,
        batch=batch,
        mix=replace(plan.mix, tasks=tasks, conflict_every=None),
        runner=Cpu() if on_cpu else Gpu(),
        budget=Budget(steps=WARMING + COUNTED),
        eval=Evaluation(rows=1),
    )
    # One row more than tracks: a stream of tracks needs one more piece than it has positions.
    known = look(here, read=True, rows=max(64, 2 * batch.rows))
    if not on_cpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        runner = Runner(here, known.prepared, Processes(on_cpu))
        began, before, last = 0.0, 0, 0
        for number, _ in enumerate(runner.steps(), start=1):
            if number == WARMING:
                began, before = _now(run.device), runner.state.tokens
            last = number
        seconds = _now(run.device) - began
    except LmctlError as error:
        raise type(error)(f"measure=true: {error}", error.hint) from error
    steps = last - WARMING
    tokens_seen = runner.state.tokens - before
    return Measured(last, seconds / steps, tokens_seen / seconds, peak_memory(run.device))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()
