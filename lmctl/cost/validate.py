"""All checks of `lmctl train` between its config and its first step, with the same errors in the same order; errors
that depend on the text (too few rows, a missing label) are not checked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from lmctl.cost.known_data import Known, look
from lmctl.cost.machine import Machine
from lmctl.cost.rows import examples_for
from lmctl.model.copy_layers import origins
from lmctl.objective.base import Examples
from lmctl.parallel.processes import check_device
from lmctl.plan import Plan
from lmctl.train.build_parts import check, check_pieces, heads_of, with_functions
from lmctl.train.prepare import check_kind


@dataclass(frozen=True)
class Checked:
    """A run that passed all checks."""

    plan: Plan
    known: Known
    examples: dict[str, Examples]
    world: int
    device: torch.device
    outline: Any
    """Its network on torch's meta device: parameters with shapes and no data."""
    teachers: Sequence[Any] = ()
    """The networks of teachers that are used while training, also on the meta device."""
    machine: Machine | None = None
    """The planned machine; None: this one."""

    @property
    def fake_device(self) -> torch.device:
        """Device of fake tensors: CPU for a GPU that is not there, because autograd does not support it."""
        return self.device if self.machine is None else torch.device("cpu")

    def there(self) -> AbstractContextManager[None]:
        """Context manager in which torch's queries about GPUs return the planned machine's properties."""
        return nullcontext() if self.machine is None else self.machine.pretended()

    @property
    def workers(self) -> int:
        """Number of workers that share the rows of a step: processes, or simulated ones."""
        return self.plan.workers(self.world)


def checked(plan: Plan, read: bool, machine: Machine | None = None) -> Checked:
    """`plan` with its known data; ConfigError if it would be refused, on `machine` if given (which is then simulated).
    `read`: see `known_data.look`."""
    world = plan.runner.world()
    plan.workers(world)
    check_device(plan.runner.on_cpu())
    device = torch.device("cpu" if plan.runner.on_cpu() else "cuda")
    plan = with_functions(plan, device)
    for name, task in plan.mix.tasks.items():
        check_kind(name, task, len(plan.mix.tasks) == 1)
    known = look(plan, read)
    examples = examples_for(plan, known)
    check(plan, world, device, examples)
    if known.tokenizer is not None:
        check_pieces(plan, known.prepared)
    with torch.device("meta"):
        outline = build(plan, known, plan.gradient_checkpointing)
        teachers = [t.outline(known.vocabulary, heads_of(plan, known.prepared)) for t in plan.teachers]
        if plan.student.from_teacher is not None:
            origins(outline, teachers[0], plan.student.from_teacher)
    in_use = teachers if plan.distill.terms and plan.teacher_cache != "use" else []
    return Checked(plan, known, examples, world, device, outline, in_use, machine)


def build(plan: Plan, known: Known, checkpointing: bool) -> Any:
    """The network of `plan`, as from `train.build_parts.network_of`, but without reading weights; to be called on the
    meta device or with fake tensors."""
    network = plan.model.outline(known.vocabulary, heads_of(plan, known.prepared))
    if checkpointing:
        network.checkpoint_activations()
    return network
