"""`lmctl distill`: train a small model from a big one, and say how much of the gap was closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmctl.config.groups import DistillConfig
from lmctl.verbs.train import Train

if TYPE_CHECKING:
    from lmctl.jobs.training import Training


class Distill(Train):
    purpose = "Train a small model from a big one; the same model without a teacher shows what was gained."
    examples = (
        "lmctl distill teacher=runs/big model=bert_tiny",
        "lmctl distill teacher=runs/big distill=[logits,hidden] distill.terms.logits.temperature=4",
        "lmctl distill -m teacher=runs/big distill=logits,minilm,tinybert",
    )
    often = (
        "teacher", "model", "distill", "data.path", "distill.hard", "budget.steps", "batch.size", "optim.lr", "name",
        "student.from_teacher",
    )  # fmt: skip
    schema = DistillConfig
    alone = None

    def run(self, config: Training) -> None:
        """Train the student, then its baseline without a teacher, and compare."""
        from lmctl.jobs.distilling import distill

        distill(config)
