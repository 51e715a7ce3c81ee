"""A run of the small corpus, checked and ready to be rehearsed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from small import plan, prepared

from lmctl.cost.known_data import Known
from lmctl.cost.rehearsal import Rehearsal, rehearse
from lmctl.cost.rows import Sample, examples_for, samples
from lmctl.cost.validate import Checked, build
from lmctl.train.weight_memory import tensors_in


def small_run(**changes: Any) -> tuple[Checked, Sample]:
    """A run of the small corpus with `changes` to the small plan, and a sample of its rows."""
    wanted = plan(**changes)
    # What tiles of attention need for a moment is not rehearsed.
    wanted = replace(wanted, model=wanted.model.settled(kernels=False), cross_entropy="fused")
    known = Known(prepared(), frozenset({"corpus"}), ())
    examples = examples_for(wanted, known)
    with torch.device("meta"):
        outline = build(wanted, known, wanted.gradient_checkpointing)
    run = Checked(wanted, known, examples, wanted.runner.world(), torch.device("cpu"), outline)
    return run, samples(wanted, examples, run.workers)["corpus"]


def rehearsed(**changes: Any) -> Rehearsal:
    """What is seen of such a run; nothing may have been left out."""
    run, sample = small_run(**changes)
    seen = rehearse(run, {"corpus": sample}, run.plan.gradient_checkpointing)
    assert seen.remarks == ()
    return seen


def storage_of(state: Any) -> int:
    """Bytes of what an exchange keeps; parameters lie side by side in one tensor each."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors_in(state)}
    return sum(storage.nbytes() for storage in storages.values())
