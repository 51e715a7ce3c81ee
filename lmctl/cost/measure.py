"""Measuring speed and memory in a few real steps.

The run's own network, objectives, precision and optimiser, on the known rows or their stand-ins, in this process alone:
of several processes, one's share of the rows; simulated workers all run. Speed is that of the steps, without
validation, checkpoints and the network between processes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from lmctl.config.schema import Budget, Evaluation
from lmctl.core.batch import Kind, Row, Split
from lmctl.core.errors import ConfigError, LmctlError
from lmctl.cost.known_data import look
from lmctl.cost.validate import Checked
from lmctl.data.base import Source
from lmctl.parallel.processes import Processes
from lmctl.parallel.simulate import as_workers
from lmctl.plan import Plan
from lmctl.runner.diloco import DiLoCo
from lmctl.runner.simulated import Simulated
from lmctl.train.summary import peak_memory
from lmctl.train.trainer import Trainer

WARMING, COUNTED = 3, 5
"""Number of steps: warm-up, and timed ones."""


@dataclass(frozen=True)
class MeasuredSteps:
    """The measurement of one process."""

    steps: int
    seconds_per_step: float
    tokens_per_second: float
    peak: int
    """Bytes; on a CPU the largest resident set of this process so far, planning included."""


def measure(run: Checked) -> MeasuredSteps:
    """Run WARMING and COUNTED steps of `run`."""
    here, on_cpu = _one_process(run), run.device.type == "cpu"
    # One more row than tracks: a stream needs one more token than its tracks have positions.
    known = look(here, read=True, rows=max(64, 2 * here.batch.rows))
    if not on_cpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        if known.tokenizer is None and here.adversary.augments:
            raise ConfigError(
                "the adversary rewrites text, and there is no tokenizer in the cache", "lmctl prepare first"
            )
        plan = _with_known_rows(here)
        return as_workers(
            plan.simulated_workers, Processes(on_cpu), lambda worker: _timed(Trainer(plan, known.prepared, worker))
        )
    except LmctlError as error:
        raise type(error)(f"measure=true: {error}", error.hint) from error


def _timed(trainer: Trainer) -> MeasuredSteps:
    device = trainer.processes.device
    began, before, last = 0.0, 0, 0
    for number, _ in enumerate(trainer.steps(), start=1):
        if number == WARMING:
            began, before = _now(device), trainer.state.tokens
        last = number
    seconds, tokens = _now(device) - began, trainer.state.tokens - before
    return MeasuredSteps(last, seconds / (last - WARMING), tokens / seconds, peak_memory(device))


def _one_process(run: Checked) -> Plan:
    """The plan of one process's share of `run`. Gradient compression runs as with a single worker, at its full cost
    except for the network."""
    plan, world = run.plan, run.world
    size, tokens = plan.batch.size, plan.batch.tokens
    whole: dict[str, Any] = {"ramp": None, "length_ramp": None}  # the largest steps
    batch = replace(plan.batch, size=size and size // world, tokens=tokens and max(tokens // world, 1), **whole)
    runner = plan.runner
    if isinstance(runner, DiLoCo):
        runner = replace(runner, processes=None, workers=runner.workers or 1)
    elif world > 1:
        runner = Simulated(1, device="cpu" if run.device.type == "cpu" else "gpu")
    return replace(plan, batch=batch, runner=runner, budget=Budget(steps=WARMING + COUNTED), eval=Evaluation(rows=1))


def _with_known_rows(plan: Plan) -> Plan:
    """`plan` with its data in memory: nothing is read, and the mix changes nothing."""
    tasks = {
        name: replace(task, augment=None, data=KnownRows(task.data.yields)) for name, task in plan.mix.tasks.items()
    }
    return replace(plan, mix=replace(plan.mix, tasks=tasks, conflict_every=None))


@dataclass(frozen=True)
class KnownRows(Source):
    """Placeholder for a source whose rows are in memory."""

    yields: Kind = "documents"

    def fingerprint(self) -> dict[str, Any]:
        return {}

    def rows(self, split: Split) -> Iterator[Row]:
        return iter(())

    def describe(self) -> str:
        return "rows that are there"


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()
