"""Choice of the fastest precision for `precision=auto`: forward and backward passes of the run's own network and rows.

Each candidate gets a network of its own, one at a time, so that memory is that of one. Measured is the shortest of a
few passes over the same rows, because neighbours on the machine only ever make a pass longer; on a CPU it is the time
of this process on its cores, which says the same on a crowded machine. The optimiser's step is the same for all and is
left out, as are teachers, adversaries and the network between processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from lmctl.core.batch import Batch
from lmctl.mix.stream import MixStream
from lmctl.parallel.processes import Processes
from lmctl.plan import Plan
from lmctl.precision.auto import Auto
from lmctl.precision.base import Precision
from lmctl.train.build_parts import blocks_of, examples_of, network_of, with_functions
from lmctl.train.learner import Learner, Pass, Share
from lmctl.train.prepare import Prepared

SECONDS = 0.25
"""About how long one pass of the first candidate may take."""
PASSES = 4
"""Timed passes of each candidate, after one that is not."""
MARGIN = 0.95
"""A less exact format must take less than this part of the time of a more exact one."""


def settled(plan: Plan, texts: Prepared, processes: Processes, say: Callable[[str], None]) -> Plan:
    """The plan with what `auto` stands for here: functions for attention and loss and, which is said, the fastest
    precision. The first process chooses. A collective operation."""
    functions = with_functions(plan, processes.device)
    model, loss = processes.broadcast((functions.model, functions.cross_entropy) if processes.first else None)
    plan = replace(plan, model=model, cross_entropy=loss)
    if not isinstance(plan.precision, Auto):
        return plan
    candidates = plan.precision.candidates(plan, processes.device)
    chosen, line = processes.broadcast(_fastest(plan, candidates, texts, processes) if processes.first else None)
    say(f"precision: {line}")
    return replace(plan, precision=candidates[chosen])


def _fastest(plan: Plan, candidates: dict[str, Precision], texts: Prepared, processes: Processes) -> tuple[str, str]:
    """The name of the fastest candidate, and a line about all of them."""
    if len(candidates) == 1:
        (name,) = candidates
        return name, f"auto: {name}, the only one for this device and model"
    train = examples_of(plan.mix, plan.model.family, plan.batch, texts, "train", augmented=False)
    stream = MixStream(plan.mix, train, plan.seed, plan.batch.rows, plan.batch.tokens, blocks_of(plan, texts))
    task = next(iter(stream.streams))
    most = plan.batch.micro or max(1, plan.batch.rows // processes.world)
    seconds: dict[str, float] = {}
    rows = None
    for name, precision in candidates.items():
        learner = _learner(plan, precision, texts, processes.device)
        if rows is None:  # as many as fit into SECONDS
            alone = _seconds(learner, stream.first(task, 1), 2)
            rows = max(1, min(most, int(SECONDS / alone)))
        seconds[name] = _seconds(learner, stream.first(task, rows), 1 + PASSES)
    chosen = next(iter(seconds))
    for name, value in seconds.items():
        if value < MARGIN * seconds[chosen]:
            chosen = name
    shown = ", ".join(f"{name} {value * 1e3:.0f}" for name, value in seconds.items())
    return chosen, f"auto: {chosen} is the fastest (ms for {rows} rows, forward and backward: {shown})"


def _learner(plan: Plan, precision: Precision, texts: Prepared, device: torch.device) -> Learner:
    network = network_of(plan, texts)
    precision.convert(network, device)
    objectives = {name: task.objective for name, task in plan.mix.tasks.items()}
    return Learner(network, objectives, precision, device).to(device).train()


def _seconds(learner: Learner, batch: Batch, passes: int) -> float:
    """The shortest of some forward and backward passes, the first one aside."""
    inputs = {name: value for name, value in batch.inputs.items() if name not in ("track", "fresh")}
    batch = replace(batch, inputs=inputs).to(learner.device)
    counts = {f"{batch.task}/{term}": count for term, count in learner.counts(batch).items()}
    times = []
    for _ in range(passes):
        began = _now(learner.device)
        learner([Pass(batch)], Share(counts)).total.backward()
        times.append(_now(learner.device) - began)
        learner.zero_grad(set_to_none=True)
    return min(times[1:])


def _now(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()
