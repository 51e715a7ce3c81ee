"""What one process and two train with several lessons, to be compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from small_teachers import taught, teacher

from lmctl.adversary.fgm import FastGradient
from lmctl.core.shards import whole
from lmctl.distill.hidden import Hidden
from lmctl.distill.logits import Logits
from lmctl.distill.minilm import MiniLM
from lmctl.parallel.processes import Processes
from lmctl.train.trainer import Trainer

STEPS = 3
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "logits": ("mlm", "bert", {"chunk_mb": 0.001}),
    "pair": ("mlm_nsp", "bert", {"chunk_mb": 0.001}),
    "all": ("mlm", "bert", {"lesson": {"logits": Logits(), "hidden": Hidden(), "minilm": MiniLM()}}),
    "class": ("class", "bert", {"adversary": FastGradient()}),
    "translate": ("translate", "marian", {"chunk_mb": 0.001}),
}


def trainer_of(processes: Processes, folder: Path, case: str, **changes: Any) -> Trainer:
    task, model, own = CASES[case]
    return Trainer(*taught(task, str(folder / f"{model}-{task}"), **own | changes), processes)


def trained(trainer: Trainer) -> dict[str, Any]:
    steps, terms = trainer.steps(), []
    for _ in range(STEPS):
        report = next(steps)
        sums = trainer.processes.sum([float(report.losses.totals.get(name, 0.0)) for name in trainer.terms])
        terms.append({name: s / report.counts[name] for name, s in zip(trainer.terms, sums, strict=True)})
    steps.close()
    return {"weights": weights(trainer), "terms": terms}


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([whole(p).flatten() for p in trainer.learner.parameters()])


def save_teachers(folder: Path) -> None:
    for task, model, _ in CASES.values():
        teacher(folder, model, task, ["a", "b", "c"] if task == "class" else None)


def found(
    here: Processes, folder: Path, cases: Sequence[str] = tuple(CASES), **changes: Any
) -> dict[str, dict[str, Any]]:
    """By case what came of it."""
    return {case: trained(trainer_of(here, folder, case, **changes)) for case in cases}
