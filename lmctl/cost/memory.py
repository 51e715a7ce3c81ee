"""The most memory that a run takes, by what takes it.

On a GPU that is what torch allocates there. On a CPU it is the process's resident set, to which three things come that
are no tensors: the interpreter with its libraries, the pages of kernels that a first step touches, and what the
allocator keeps. All three are measured, not derived:

- libraries: this process's own resident set, once it has imported what training imports and before it counts anything.
  What a component imports only when it works stands in its optional attribute `imports`;
- KERNELS: by how much the resident set of a run grows up to its 15th step if its tensors take nothing (BERT of one
  layer of width 16, two rows of 16 positions: 418.5 MiB against 396.2 MiB before the first batch; torch 2.13);
- HEAP: glibc keeps blocks of less than 32 MiB on its heap, and where one of n bytes was freed the next tensor of n
  bytes does not fit (posix_memalign asks for room to align it besides), so the heap has holes. What runs of bert_mini
  took besides the two things before was 1.53 (8 rows) and 1.45 (32 rows) times the live bytes (glibc 2.36), and with
  MALLOC_MMAP_THRESHOLD_=131072, which keeps such blocks off the heap, 1.05 times.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module

import psutil

from lmctl.cost.legal import Checked
from lmctl.cost.live import ACTIVATIONS, FEEDBACK, GRADIENTS, LOGITS, PASSING, ROWS, STATES, WEIGHTS
from lmctl.cost.rehearse import Rehearsal
from lmctl.cost.rows import Sample
from lmctl.plan import Plan

KERNELS = 22 << 20
"""Bytes."""
HEAP = 0.5
"""Of the bytes in blocks that glibc keeps on its heap, what it takes besides."""
AHEAD = 2
"""Steps whose rows are in memory: the one at work, and the one that a thread makes ready."""


@dataclass(frozen=True)
class Component:
    """One thing that takes memory."""

    name: str
    peak: int
    """Bytes at the moment when the sum of all is largest."""
    most: int
    """The most bytes that it takes at any time."""
    note: str = ""


@dataclass(frozen=True)
class Memory:
    """Memory of one process."""

    device: str
    components: tuple[Component, ...]
    moment: str
    """When the peak is."""

    @property
    def peak(self) -> int:
        """Bytes: the prediction."""
        return sum(component.peak for component in self.components)

    def of(self, name: str) -> Component:
        return next(component for component in self.components if component.name == name)


def memory_of(run: Checked, rehearsal: Rehearsal, samples: Mapping[str, Sample], checkpointing: bool) -> Memory:
    """What was rehearsed, and on a CPU what is not tensors."""
    plan, cpu = run.plan, run.device.type == "cpu"
    peak, most = rehearsal.peak.by, rehearsal.most

    def tensors(name: str, note: str = "") -> Component:
        return Component(name, peak.get(name, 0), most.get(name, 0), note)

    ahead = round(AHEAD * sum(s.bytes / s.rows * s.rows_per_step for s in samples.values()) / run.world)
    rows = ahead if cpu else peak.get(ROWS, 0)
    components = [
        tensors(WEIGHTS),
        Component("master weights", 0, 0, plan.precision.table(run.device)["master"]),
        tensors(GRADIENTS),
        tensors(STATES),
        tensors(FEEDBACK),
        tensors(ACTIVATIONS, "layers are recomputed" if checkpointing else "kept for the backward pass"),
        tensors(LOGITS, "at predicted positions: logits, softmax and their gradients"),
        tensors(PASSING, "results that nothing keeps"),
        Component("teacher", 0, 0),
        Component("rows", rows, rows, "this step's and the next one's"),
    ]
    if cpu:
        heap = round(HEAP * rehearsal.peak.heap) if platform.libc_ver()[0] == "glibc" else 0
        note = f"{HEAP:.0%} on blocks below 32 MiB" if heap else ""
        components.append(Component("allocator", heap, heap, note))
        runtime = libraries(plan) + KERNELS
        components.append(Component("runtime", runtime, runtime, "Python, torch, transformers, kernels"))
    return Memory(run.device.type, tuple(components), rehearsal.moment)


def libraries(plan: Plan) -> int:
    """Bytes that are resident because of what the run imports. To be asked for after its network was outlined, which
    imports the most."""
    parts = [plan.model, plan.precision, plan.optim, plan.adversary, plan.compression]
    parts += [part for task in plan.mix.tasks.values() for part in (task.objective, task.data)]
    names = {name for part in parts for name in getattr(part, "imports", ())}
    return _common() + sum(map(_added_by, sorted(names)))


@cache
def _common() -> int:
    """What all runs import."""
    import lmctl.run.session  # noqa: F401

    return _resident()


@cache
def _added_by(library: str) -> int:
    before = _resident()
    import_module(library)
    return max(0, _resident() - before)


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)
