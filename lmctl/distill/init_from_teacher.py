"""Student initialisation from the teacher's weights (`student.from_teacher=`)."""

from __future__ import annotations

from typing import Any

from lmctl.distill.teacher import vocabularies
from lmctl.model.copy_layers import inherit
from lmctl.plan import Plan
from lmctl.train.build_parts import heads_of
from lmctl.train.prepare import Prepared


def init_from_teacher(plan: Plan, prepared: Prepared, network: Any) -> list[str]:
    """Copy the teacher's layers that `plan` selects into the new student `network`, on the CPU; returns lines about it.
    The teacher is freed afterwards."""
    keep = plan.student.from_teacher
    if keep is None:
        return []
    model = plan.teachers[0]
    known, shared = vocabularies(model, prepared)
    teacher = model.load(known, heads_of(plan, prepared))
    lines = inherit(network, teacher, keep, None if shared.same else shared.to_teacher)
    return lines if shared.same else [*lines, shared.describe()]
