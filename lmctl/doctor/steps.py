"""Proofs about steps: resuming, accumulation, workers and compression change nothing."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lmctl.compression.compressor import Compressor
from lmctl.core import child_process
from lmctl.core.command_words import setting
from lmctl.core.paths import Paths
from lmctl.doctor.proof import Failed
from lmctl.doctor.small_runs import PLAIN, STEPS, SmallRuns, distance, state_of
from lmctl.plan import Plan
from lmctl.runner.simulated import Simulated
from lmctl.train.checkpoint import Checkpoints
from lmctl.train.checkpoint_reader import read

ROUNDING = 1e-5
"""How far weights may be apart, relatively, where sums are made in another order."""


def resumes(runs: SmallRuns) -> str:
    """A run that goes on from a checkpoint, in new objects, beside one that nobody disturbed."""
    whole, checkpoints = runs.trainer(runs.encoder), Checkpoints(runs.folder / "checkpoints", 2)
    for report in whole.steps():
        if report.step == STEPS // 2:
            saved = checkpoints.save(report.step, whole.step.average.tensors(), whole.state_dict(), whole.own_state())
    again, contents = runs.trainer(runs.encoder), read(saved)
    again.load(contents.weights, contents.state, contents.of_rank(0))
    taken = sum(1 for _ in again.steps())
    if taken != STEPS - STEPS // 2:
        raise Failed(f"it took {taken} steps instead of {STEPS - STEPS // 2}")
    names = different(state_of(whole), state_of(again))
    if names:
        raise Failed(f"{len(names)} tensors differ, the first: {names[0]}")
    return f"weights and optimiser after {STEPS} steps are the same bits"


def different(one: Any, other: Any, name: str = "") -> list[str]:
    """The names of the tensors and values that are not the same, to the bit."""
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [name]
        return [found for key in one for found in different(one[key], other[key], f"{name}.{key}".strip("."))]
    if isinstance(one, list | tuple):
        return [
            found for at, pair in enumerate(zip(one, other, strict=True)) for found in different(*pair, f"{name}.{at}")
        ]
    same = torch.equal(one, other) if isinstance(one, Tensor) else one == other
    return [] if same else [name]


def accumulates(runs: SmallRuns) -> str:
    """One pass over 8 rows, and two over 4."""
    plan = runs.plain
    return near(runs, plan, replace(plan, batch=replace(plan.batch, micro=plan.batch.rows // 2)))


def two_workers(runs: SmallRuns) -> str:
    """One worker with all rows, and two that share them, as threads."""
    return near(runs, runs.plain, replace(runs.plain, runner=Simulated(workers=2, device=_device(runs))))


def two_processes(runs: SmallRuns) -> str:
    """The same with two processes, which `lmctl train` starts, on the CPU."""
    folder = runs.folder / "two"
    words = runs.words(*PLAIN)
    last = ["runner=ddp", "runner.processes=2", "runner.device=cpu", "name=two", setting("run_dir", str(folder))]
    command = child_process.command("train", *[word for word in words if not word.startswith("runner=")], *last)
    with child_process.in_environment():
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Failed(f"it ended with {done.returncode}: {next(iter(done.stderr.strip().splitlines()[-1:]), '')}")
    alone = SmallRuns(runs.folder, on_cpu=True) if not runs.on_cpu else runs
    trainer = alone.trainer(alone.plain)
    for _ in trainer.steps():
        pass
    exported, own = load_file(Paths(folder).model / "model.safetensors"), trainer.network.model.state_dict()
    names = [name for name in exported if name in own]
    return judged(
        torch.cat([own[name].flatten() for name in names]), torch.cat([exported[name].flatten() for name in names])
    )


def sends_everything(runs: SmallRuns) -> str:
    """Two workers without compression, and with one that leaves nothing out."""
    plan = replace(runs.plain, runner=Simulated(workers=2, device=_device(runs)))
    return near(runs, plan, replace(plan, compression=Compressor(error_feedback=False)))


def near(runs: SmallRuns, one: Plan, other: Plan) -> str:
    """Failed unless both plans train the same weights, but for rounding."""
    return judged(runs.trained(one), runs.trained(other))


def judged(one: Tensor, other: Tensor) -> str:
    """Failed unless these weights are the same, but for rounding."""
    apart = distance(one, other)
    words = f"weights after {STEPS} steps are {apart:.1e} of their norm apart"
    if not apart <= ROUNDING:
        raise Failed(f"{words}; rounding explains {ROUNDING:.0e}")
    return words


def _device(runs: SmallRuns) -> str:
    return "cpu" if runs.on_cpu else "gpu"
