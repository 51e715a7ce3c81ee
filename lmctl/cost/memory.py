"""Peak memory of a run, by component.

On a GPU it is the memory that torch allocates, and WORKSPACES, which the rehearsal does not see. On a CPU it is the
process's resident set, which has more than tensors. These other terms are measured, but for the last (torch 2.13,
glibc 2.36, Python 3.11):

- libraries: this process's own resident set, after importing what training imports and before counting anything. A
  component names the libraries that it imports later in its attribute `imports`.
- KERNELS: growth of the resident set of a run up to its 15th step if its tensors are tiny (BERT of one layer of width
  16, two rows of 16 positions: 418.5 MiB against 396.2 MiB before the first batch).
- COMPILED: growth when numba, which is imported already, loads a first kernel: its types, LLVM's tables (57 MiB).
- PRODUCT: on a CPU with half-precision units oneDNN compiles a kernel for every shape of a product, and caches it.
  bert_tiny in bf16 grows by 230 MiB in 40 steps, with its 30 products and about 28 batch shapes, and 410 MiB in 300.
- holes: the heap grows to the end of the last block that did not fit anywhere else, and never shrinks. The rehearsed
  step's blocks are placed on such a heap (`cost/heap.py`); nothing of it is fitted.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import psutil

from lmctl.core.extras import is_installed
from lmctl.cost.heap import replayed
from lmctl.cost.memory_tracker import ACTIVATIONS, FEEDBACK, GRADIENTS, LOGITS, PASSING, ROWS, STATES, WEIGHTS
from lmctl.cost.rehearsal import Rehearsal
from lmctl.cost.rows import Sample
from lmctl.cost.validate import Checked
from lmctl.distill.teacher import is_shared
from lmctl.plan import Plan
from lmctl.precision.fp32 import Fp32

WORKSPACES = 64 << 20
"""Bytes of the workspaces of cuBLAS and cuBLASLt, 32 MiB each on a Hopper GPU (torch 2.11)."""
KERNELS = 22 << 20
"""Bytes."""
COMPILED = 57 << 20
"""Bytes, where kernels are compiled."""
PRODUCT = 0.3 * (1 << 20)
"""Bytes for each cached kernel of a half-precision product."""
PRODUCTS = 1024
"""Capacity of oneDNN's kernel cache (ONEDNN_PRIMITIVE_CACHE_CAPACITY)."""
DIFFER = 4
"""Up to this number of shapes, batches count as equal: only a first and a last one differ."""
AHEAD = 2
"""Steps whose rows are in memory: the current one, and the prefetched one."""


@dataclass(frozen=True)
class MemoryPart:
    """One component of the memory."""

    name: str
    peak: int
    """Bytes at the peak of the total."""
    most: int
    """Maximum bytes of this component at any time."""
    note: str = ""


@dataclass(frozen=True)
class Memory:
    """Memory of one process."""

    device: str
    components: tuple[MemoryPart, ...]
    moment: str
    """The phase of the peak."""
    host: int = 0
    """Bytes in host memory besides, of a run on a GPU."""

    @property
    def peak(self) -> int:
        """The predicted peak in bytes."""
        return sum(component.peak for component in self.components)

    def of(self, name: str) -> MemoryPart:
        return next(component for component in self.components if component.name == name)


def memory_of(run: Checked, rehearsal: Rehearsal, samples: Mapping[str, Sample], checkpointing: bool) -> Memory:
    """Memory by component: the rehearsed tensors and, on a CPU, allocator, kernels and libraries."""
    plan, cpu = run.plan, run.device.type == "cpu"
    peak, most = rehearsal.peak.by, rehearsal.most

    others = run.workers - 1 if run.world == 1 else 0
    """Simulated workers besides the active one: their state stays in memory."""

    def tensors(name: str, note: str = "") -> MemoryPart:
        return MemoryPart(name, peak.get(name, 0), most.get(name, 0), note)

    def kept(name: str, note: str = "") -> MemoryPart:
        waiting = others * most.get(name, 0)
        return MemoryPart(name, peak.get(name, 0) + waiting, most.get(name, 0) + waiting, note)

    ahead = round(AHEAD * sum(s.bytes / s.rows * s.rows_per_step for s in samples.values()) / run.world)
    rows = ahead if cpu else peak.get(ROWS, 0)
    components = [
        kept(WEIGHTS),
        MemoryPart("master weights", 0, 0, plan.precision.table(run.device)["master"]),
        kept(GRADIENTS),
        kept(STATES),
        kept(FEEDBACK),
        tensors(ACTIVATIONS, "layers are recomputed" if checkpointing else "kept for the backward pass"),
        tensors(LOGITS, "at predicted positions: logits, softmax and their gradients"),
        kept(PASSING, "results that nothing keeps"),  # workers wait for each other in the middle of an exchange
        _teachers(run),
        MemoryPart("rows", rows, rows, "this step's and the next one's"),
    ]
    if cpu:
        components += _not_tensors(plan, rehearsal, max(sample.shapes for sample in samples.values()))
    else:
        components.append(MemoryPart("workspaces", WORKSPACES, WORKSPACES, "of cuBLAS"))
    return Memory(run.device.type, tuple(components), rehearsal.moment, rehearsal.host)


def _teachers(run: Checked) -> MemoryPart:
    """Weights of the teachers. Their activations of a micro-batch are freed before the student's forward pass."""
    quantised = run.plan.distill.teacher_precision if run.teachers else None
    shards = run.plan.runner.shards(run.world) if is_shared(run.plan, quantised or Fp32()) else 1
    taken = sum(_weights(teacher, shards) for teacher in run.teachers)
    return MemoryPart("teacher", taken, taken, "counted as float32" if quantised is not None else "")


def _weights(teacher: Any, shards: int) -> int:
    """Bytes of a teacher's weights in one process: shards of its layers, two of which are whole at a time."""
    size = {id(weight): weight.nbytes for weight in teacher.state_dict(keep_vars=True).values()}
    layers = [sum(size[id(weight)] for weight in unit.parameters()) for unit in teacher.units()] if shards > 1 else []
    return sum(size.values()) - sum(layers) + sum(layers) // shards + 2 * max(layers, default=0)


def _not_tensors(plan: Plan, rehearsal: Rehearsal, shapes: int) -> list[MemoryPart]:
    """Memory of a CPU process other than tensors, for batches of `shapes` different shapes."""
    peak, heap = rehearsal.peak, 0
    if platform.libc_ver()[0] == "glibc":
        heap = max(0, peak.resting + replayed(peak.trace, ragged=shapes > DIFFER) - peak.total)
    products = min(PRODUCTS, rehearsal.products * shapes)
    kernels = KERNELS + round(PRODUCT * products) + (COMPILED if _compiles(plan) else 0)
    what = f", made for {products:,} products in half precision" if products else ""
    imported = libraries(plan)
    return [
        MemoryPart("allocator", heap, heap, "holes in the heap"),
        MemoryPart("kernels", kernels, kernels, f"code{what}"),
        MemoryPart("libraries", imported, imported, "Python, torch, transformers"),
    ]


def import_for(plan: Plan) -> None:
    """Import the libraries of the components of `plan`, and record the memory of each. To be called before anything
    else for `plan`."""
    for library in _needed_libraries(plan):
        if library not in _added:
            before = _resident()
            with suppress(ImportError):  # not installed: training reports it
                import_module(library)
            _added[library] = max(0, _resident() - before)


def libraries(plan: Plan) -> int:
    """Resident bytes of all imports of the run. To be called right after its network was outlined."""
    return _common_imports() + sum(_added[library] for library in _needed_libraries(plan))


_added: dict[str, int] = {}
"""Resident bytes by library."""


@cache
def _common_imports() -> int:
    """Resident bytes of the imports of every run."""
    import lmctl.train.session  # noqa: F401

    return _resident() - sum(_added.values())


def _needed_libraries(plan: Plan) -> set[str]:
    parts = [plan.model, plan.precision, plan.optim, plan.adversary, plan.compression]
    parts += [part for task in plan.mix.tasks.values() for part in (task.objective, task.data)]
    return {name for part in parts for name in part.imports} | ({"numba"} if _compiles(plan) else set())


def _compiles(plan: Plan) -> bool:
    """Whether the run's kernels on a CPU are compiled."""
    return plan.kernels != "torch" and plan.runner.on_cpu() and is_installed("numba")


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)
