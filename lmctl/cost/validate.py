"""Every refusal that `lmctl train` would make between its config and its first step, in the same words and order; what
depends on the text itself (too few rows, a label that is missing) only the text can tell."""

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
from lmctl.train.build_parts import check, check_pieces, heads_of
from lmctl.train.prepare import check_kind


@dataclass(frozen=True)
class Checked:
    """A run that nothing is said against."""

    plan: Plan
    known: Known
    examples: dict[str, Examples]
    world: int
    device: torch.device
    outline: Any
    """Its network on torch's meta device: parameters with shapes and no contents."""
    teachers: Sequence[Any] = ()
    """Those of the networks that are asked while the run learns, likewise."""
    machine: Machine | None = None
    """Where it is to run; None: here."""

    @property
    def fake_device(self) -> torch.device:
        """Where tensors without contents are: autograd does not follow them to a GPU that is not there."""
        return self.device if self.machine is None else torch.device("cpu")

    def there(self) -> AbstractContextManager[None]:
        """Inside it, questions about GPUs are answered as where the run will be."""
        return nullcontext() if self.machine is None else self.machine.pretended()

    @property
    def workers(self) -> int:
        """How many share the rows of a step: its processes, or those that one process plays."""
        return self.plan.workers(self.world)


def checked(plan: Plan, read: bool, machine: Machine | None = None) -> Checked:
    """`plan` with what is known of it; ConfigError if it would be refused, on `machine` if it is given (and then
    pretended). `read`: see `known.look`."""
    world = plan.runner.world()
    plan.workers(world)
    check_device(plan.runner.on_cpu())
    device = torch.device("cpu" if plan.runner.on_cpu() else "cuda")
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
    asked = teachers if plan.distill.terms and plan.teacher_cache != "use" else []
    return Checked(plan, known, examples, world, device, outline, asked, machine)


def build(plan: Plan, known: Known, checkpointing: bool) -> Any:
    """The network of `plan` as `run.assemble.network_of` makes it, but that no weights are read; to be called where
    tensors have no contents."""
    network = plan.model.outline(known.vocabulary, heads_of(plan, known.prepared))
    if checkpointing:
        network.checkpoint_activations()
    return network
