"""The complete cost estimate of one plan."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import torch
from torch import nn

from lmctl.config.groups import PlanConfig, TrainConfig
from lmctl.config.table import rows
from lmctl.core.collectives import Link
from lmctl.core.errors import ConfigError
from lmctl.cost.budget import Spending, spending
from lmctl.cost.communication import Communication, wire_of
from lmctl.cost.machine import Machine
from lmctl.cost.measure import MeasuredSteps, measure
from lmctl.cost.memory import Memory, import_for, libraries, memory_of
from lmctl.cost.rehearsal import rehearse
from lmctl.cost.rows import samples
from lmctl.cost.start_lines import notes, start_lines
from lmctl.cost.validate import Checked, checked
from lmctl.optim.adamw import AdamW
from lmctl.plan import Plan


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters; tied ones count once."""

    total: int
    trainable: int
    embeddings: int
    """Parameters of embedding tables, including output layers tied to them."""

    @property
    def rest(self) -> int:
        return self.total - self.embeddings


@dataclass(frozen=True)
class Estimate:
    """The cost estimate of a run."""

    parameters: Parameters
    memory: Memory
    other: Memory | None
    """Memory with gradient checkpointing toggled; None if that is not possible, or not requested."""
    wire: Communication
    spending: Spending
    measured: MeasuredSteps | None
    machine: Machine | None
    """The planned machine; None: this one."""
    room: int | None
    """Memory of the device in bytes; None: unknown, of a GPU that is not here."""
    fits: bool | None
    """Whether the peak (on a CPU, of all processes together) fits into it."""
    remarks: tuple[str, ...]
    """Assumptions."""
    start: tuple[str, ...]
    """Commands that start its processes, by lmctl, torchrun and accelerate; none for a single process."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "parameters": asdict(self.parameters) | {"rest": self.parameters.rest},
            "memory": _memory(self.memory),
            "with_other_checkpointing": None if self.other is None else _memory(self.other),
            "wire": asdict(self.wire),
            "budget": asdict(self.spending),
            "measured": None if self.measured is None else asdict(self.measured),
            "machine": None if self.machine is None else self.machine.as_dict(),
            "room_bytes": self.room,
            "fits": self.fits,
            "remarks": list(self.remarks),
            "start": list(self.start),
        }


def _memory(memory: Memory) -> dict[str, Any]:
    components = {c.name: {"peak_bytes": c.peak, "most_bytes": c.most} for c in memory.components}
    found = {"device": memory.device, "peak_bytes": memory.peak, "host_bytes": memory.host}
    return found | {"moment": memory.moment, "components": components}


def estimate(plan: Plan, link: Link, measured: bool, alternative: bool, machine: Machine | None = None) -> Estimate:
    """Estimate the costs of `plan`, on `machine` if it is not for this one; ConfigError, as in `train`, if it would be
    refused. `alternative`: also with gradient checkpointing toggled."""
    import_for(plan)
    with nullcontext() if machine is None else machine.pretended():
        run = checked(plan, measured, machine)
    shapes = samples(plan, run.examples, run.workers)
    libraries(plan)  # measured before this process allocates anything else
    rehearsal = rehearse(run, shapes, plan.gradient_checkpointing)
    memory = memory_of(run, rehearsal, shapes, plan.gradient_checkpointing)
    result = measure(run) if measured else None
    room, needed = room_of(run), memory.peak * (run.world if run.device.type == "cpu" else 1)
    fits = None if room is None else needed <= room
    with run.there():
        start = start_lines(plan.runner, sys.argv[2:], rows(PlanConfig).keys() - rows(TrainConfig).keys())
    return Estimate(
        parameters=parameters_of(run.outline),
        memory=memory,
        other=_other(run, shapes) if alternative else None,
        wire=wire_of(run, rehearsal, link),
        spending=spending(plan, run.known, run.examples, shapes, result.seconds_per_step if result else None),
        measured=result,
        machine=machine,
        room=room,
        fits=fits,
        remarks=(*(machine.assumed if machine else ()), *run.known.assumed, *rehearsal.remarks, *_remarks(run)),
        start=start,
    )


def parameters_of(network: nn.Module) -> Parameters:
    """Parameter counts of a network, which may be on the meta device."""
    parameters = list(network.parameters())
    tables = {id(m.weight): m.weight.numel() for m in network.modules() if isinstance(m, nn.Embedding)}
    return Parameters(
        sum(p.numel() for p in parameters),
        sum(p.numel() for p in parameters if p.requires_grad),
        sum(tables.values()),
    )


def room_of(run: Checked) -> int | None:
    """Memory in bytes of the run's device, if known."""
    if run.machine is not None:
        return run.machine.card.memory
    if run.device.type == "cuda":
        return torch.cuda.get_device_properties(run.device).total_memory
    return int(psutil.virtual_memory().total)


def _other(run: Checked, shapes: Any) -> Memory | None:
    other = not run.plan.gradient_checkpointing
    try:
        return memory_of(run, rehearse(run, shapes, other), shapes, other)
    except ConfigError:
        return None


def _remarks(run: Checked) -> list[str]:
    plan, remarks = run.plan, list[str]()
    with run.there():
        remarks += plan.precision.remarks(plan, run.device)
    if run.machine is not None and isinstance(plan.optim, AdamW) and plan.optim.paged:
        remarks.append("optim.paged=true: states are counted as if they stayed on the GPU")
    slow = plan.precision.no_gain(run.device) if run.machine is None else None
    if slow is not None:
        remarks.append(slow)
    if plan.compile:
        remarks.append("compile=true: counted as if it were not compiled")
    if plan.runner.every > 1:
        remarks.append(
            f"bytes are the mean over {plan.runner.every} steps (runner.every), of which one sends nearly all"
        )
    if run.world > 1:
        remarks.append(f"memory is that of one of {run.world} processes")
        with run.there():
            remarks += notes(plan.runner)
    if run.device.type == "cuda" and run.machine is None:
        remarks.append("memory is what torch allocates on the GPU; CUDA itself takes some hundred MiB besides")
    return remarks
