"""`adversary=rdrop`: R-Drop, consistency between two dropout masks (Liang et al. 2021, "R-Drop: Regularized dropout for
neural networks", section 2.1).

Loss = mean of the losses of both passes + `weight` * symmetric KL divergence (mean of both directions) between them,
as in the authors' code. In the paper the two losses are added, which makes its alpha twice this weight.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmctl.adversary.base import Adversary, AttackedBatch, Outcome, View
from lmctl.config.schema import positive


@dataclass(frozen=True)
class RDrop(Adversary):
    """Two passes with different dropout masks, and the divergence between their predictions."""

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
