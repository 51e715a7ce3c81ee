"""`adversary=fgm`: one step against the network (Miyato et al. 2017, "Adversarial training methods for
semi-supervised text classification", section 3).

The worst shift of a row's embeddings within a small ball is, to first order, r = epsilon g / ||g|| with g the gradient
of the loss by them. The paper normalises the embeddings first (section 2); here they stay as they are, so that epsilon
is to be seen against how long a row's embeddings are.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmctl.adversary.base import Adversary, AttackedBatch, Outcome, View
from lmctl.config.schema import positive


@dataclass(frozen=True)
class FastGradient(Adversary):
    """The loss of the rows, and `weight` times that of the rows shifted by `epsilon` along the gradient."""

    epsilon: float = 1.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        positive(epsilon=self.epsilon, weight=self.weight)

    @property
    def passes(self) -> float:
        return 2.0

    def forward_backward(self, micro: AttackedBatch) -> Outcome:
        from lmctl.adversary.ascent import direction

        shift = micro.zeros()
        clean = micro.forward_backward(View(shift))
        assert shift.grad is not None
        worst = View(self.epsilon * direction(shift.grad), weight=self.weight)
        return Outcome(clean.losses[0], micro.forward_backward(worst, last=True).losses[0])
