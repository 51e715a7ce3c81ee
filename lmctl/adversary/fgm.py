"""`adversary=fgm`: fast gradient method, one ascent step on the embeddings (Miyato et al. 2017, "Adversarial training
methods for semi-supervised text classification", section 3).

The worst perturbation of a row's embeddings in a small L2 ball is, to first order, r = epsilon g / ||g||, where g is
the gradient of the loss with respect to the embeddings. The paper normalises the embeddings first (section 2). Here
they are not normalised, so epsilon must be chosen relative to the norm of a row's embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmctl.adversary.base import Adversary, AttackedBatch, Outcome, View
from lmctl.config.schema import positive


@dataclass(frozen=True)
class FastGradient(Adversary):
    """Loss = clean loss + `weight` * loss at the embeddings shifted by `epsilon` along the normalised gradient."""

    epsilon: float = 1.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        positive(epsilon=self.epsilon, weight=self.weight)

    @property
    def passes(self) -> float:
        return 2.0

    def forward_backward(self, micro: AttackedBatch) -> Outcome:
        from lmctl.adversary.ascent import normalise

        shift = micro.zeros()
        clean = micro.forward_backward(View(shift))
        assert shift.grad is not None
        worst = View(self.epsilon * normalise(shift.grad), weight=self.weight)
        return Outcome(clean.losses[0], micro.forward_backward(worst, last=True).losses[0])
