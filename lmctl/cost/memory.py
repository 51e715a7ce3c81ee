"""The most memory that a run takes, by what takes it.

On a GPU that is what torch allocates there, WORKSPACES included, which no step asks for. On a CPU it is the process's
resident set, to which things come that are no tensors. They are measured, not derived (torch 2.13, glibc 2.36, Python
3.11):

- libraries: this process's own resident set, once it has imported what training imports and before it counts anything.
  What a component imports only when it works stands in its optional attribute `imports`.
- KERNELS: by how much the resident set of a run grows up to its 15th step if its tensors take nothing (BERT of one
  layer of width 16, two rows of 16 positions: 418.5 MiB against 396.2 MiB before the first batch).
- PRODUCT: a CPU with units for half precision has code made for every shape of a product, and keeps it. bert_tiny in
  bf16 grows by 230 MiB in 40 steps, in which its 30 products meet about 28 shapes of a batch, and 410 MiB in 300.
- HOLES: glibc keeps blocks of less than 32 MiB on its heap, where they cannot move. A hole that a block has left
  takes one of its size and hardly any other: small objects lie between, and posix_memalign wants room to align besides.
  So a run takes what its blocks take at their most, size by size, whenever that is (`Peak.places`), and a part more;
  in runs whose steps are all alike 1.1 to 1.8 times as much (13 runs), where rows differ in length 1.3 to 2.9 times,
  although the holes are given back now and then (`train/malloc_trim.py`; 16 runs).
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module

import psutil

from lmctl.cost.memory_tracker import ACTIVATIONS, FEEDBACK, GRADIENTS, LOGITS, PASSING, ROWS, STATES, WEIGHTS
from lmctl.cost.rehearsal import Rehearsal
from lmctl.cost.rows import Sample
from lmctl.cost.validate import Checked
from lmctl.plan import Plan

WORKSPACES = 64 << 20
"""Bytes that cuBLAS and cuBLASLt are given for their sums, 32 MiB each on a Hopper GPU (torch 2.11)."""
KERNELS = 22 << 20
"""Bytes."""
PRODUCT = 0.3 * (1 << 20)
"""Bytes for each product in half precision."""
PRODUCTS = 1024
"""As many of them are kept (oneDNN's ONEDNN_PRIMITIVE_CACHE_CAPACITY)."""
HOLES = {False: 1.4, True: 2.0}
"""What the heap takes, against `Peak.places` without what is there all the time; by whether batches differ in shape."""
DIFFER = 4
"""Shapes in that many batches that are no more than a first and a last one."""
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

    others = run.workers - 1 if run.world == 1 else 0
    """Workers besides the one that computes, in the same process: they wait with all that they keep."""

    def tensors(name: str, note: str = "") -> Component:
        return Component(name, peak.get(name, 0), most.get(name, 0), note)

    def kept(name: str) -> Component:
        waiting = others * most.get(name, 0)
        return Component(name, peak.get(name, 0) + waiting, most.get(name, 0) + waiting, "")

    ahead = round(AHEAD * sum(s.bytes / s.rows * s.rows_per_step for s in samples.values()) / run.world)
    rows = ahead if cpu else peak.get(ROWS, 0)
    components = [
        kept(WEIGHTS),
        Component("master weights", 0, 0, plan.precision.table(run.device)["master"]),
        kept(GRADIENTS),
        kept(STATES),
        kept(FEEDBACK),
        tensors(ACTIVATIONS, "layers are recomputed" if checkpointing else "kept for the backward pass"),
        tensors(LOGITS, "at predicted positions: logits, softmax and their gradients"),
        tensors(PASSING, "results that nothing keeps"),
        _teachers(run),
        Component("rows", rows, rows, "this step's and the next one's"),
    ]
    if cpu:
        components += _not_tensors(plan, rehearsal, max(sample.shapes for sample in samples.values()))
    else:
        components.append(Component("workspaces", WORKSPACES, WORKSPACES, "of cuBLAS"))
    return Memory(run.device.type, tuple(components), rehearsal.moment)


def _teachers(run: Checked) -> Component:
    """Weights of the networks that are asked. What they keep of a micro-batch is gone when the student computes."""
    weights = [weight for teacher in run.teachers for weight in teacher.state_dict(keep_vars=True).values()]
    taken = sum(weight.nbytes for weight in {id(weight): weight for weight in weights}.values())
    quantised = run.plan.distill.teacher_precision if run.teachers else None
    return Component("teacher", taken, taken, "counted as float32" if quantised is not None else "")


def _not_tensors(plan: Plan, rehearsal: Rehearsal, shapes: int) -> list[Component]:
    """What a process takes besides tensors, whose batches have so many `shapes`."""
    peak, heap = rehearsal.peak, 0
    if platform.libc_ver()[0] == "glibc":
        holes = HOLES[shapes > DIFFER]
        heap = max(0, round(peak.resting + holes * (peak.places - peak.resting)) - peak.heap)
    products = min(PRODUCTS, rehearsal.products * shapes)
    kernels = KERNELS + round(PRODUCT * products)
    what = f", made for {products:,} products in half precision" if products else ""
    imported = libraries(plan)
    return [
        Component("allocator", heap, heap, "holes in the heap"),
        Component("kernels", kernels, kernels, f"code{what}"),
        Component("libraries", imported, imported, "Python, torch, transformers"),
    ]


def import_for(plan: Plan) -> None:
    """Import the libraries that the components of `plan` name, and take note of what each adds to this process. To be
    called before anything else is done for `plan`."""
    for library in _named(plan):
        if library not in _added:
            before = _resident()
            with suppress(ImportError):  # not everywhere can it be had, and training will say so
                import_module(library)
            _added[library] = max(0, _resident() - before)


def libraries(plan: Plan) -> int:
    """Bytes that are resident because of what the run imports. To be asked for as soon as its network was outlined."""
    return _common() + sum(_added[library] for library in _named(plan))


_added: dict[str, int] = {}
"""Bytes by library."""


@cache
def _common() -> int:
    """What all runs import."""
    import lmctl.train.session  # noqa: F401

    return _resident() - sum(_added.values())


def _named(plan: Plan) -> set[str]:
    parts = [plan.model, plan.precision, plan.optim, plan.adversary, plan.compression]
    parts += [part for task in plan.mix.tasks.values() for part in (task.objective, task.data)]
    return {name for part in parts for name in part.imports}


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)
