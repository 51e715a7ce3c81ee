"""`adversary=rdrop`: two passes with other dropout must give the same answer (Liang et al. 2021, "R-Drop: Regularized
dropout for neural networks", section 2.1).

The loss is the mean of the two passes' and `weight` times the mean of both directions of the divergence between them,
as in the authors' code; in their paper the two losses are added up, which makes its alpha twice this weight.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmctl.adversary.base import Adversary, AttackedBatch, Outcome, View
from lmctl.config.schema import positive


@dataclass(frozen=True)
class RDrop(Adversary):
    """Two networks that dropout makes of one learn to agree."""

    weight: float = 1.0

    needs_dropout = True

    def __post_init__(self) -> None:
        positive(weight=self.weight)

    @property
    def passes(self) -> float:
        return 2.0

    def forward_backward(self, micro: AttackedBatch) -> Outcome:
        views = View(weight=0.5), View(weight=0.5, fresh=True)
        report = micro.forward_backward(*views, agree=self.weight, last=True)
        one, other = report.losses
        return Outcome({term: (one[term] + other[term]) / 2 for term in one}, report.disagreement)
