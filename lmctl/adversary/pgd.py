"""`adversary=pgd`: projected gradient descent, several ascent steps on the embeddings (Madry et al. 2018, "Towards deep
learning models resistant to adversarial attacks", section 2.1).

Each step follows the gradient and is projected onto the ball; parameters are trained at the last point. The paper
trains on perturbed rows only and may start at random. Here the clean loss counts as well, as in Miyato et al. 2017, and
the ascent starts at the unperturbed rows, so that one pass serves both.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmctl.adversary.base import Adversary, AttackedBatch, Outcome, View
from lmctl.config.schema import positive


@dataclass(frozen=True)
class ProjectedGradient(Adversary):
    """Loss = clean loss + `weight` * loss after `steps` ascent steps of length `step_size` within the ball
    `epsilon`."""

    epsilon: float = 1.0
    steps: int = 3
    step_size: float = 0.5
    weight: float = 1.0

    def __post_init__(self) -> None:
        positive(epsilon=self.epsilon, steps=self.steps, step_size=self.step_size, weight=self.weight)

    @property
    def passes(self) -> float:
        return self.steps + 1.0

    def forward_backward(self, micro: AttackedBatch) -> Outcome:
        from lmctl.adversary.ascent import ascent_step

        shift = micro.zeros()
        clean = micro.forward_backward(View(shift))
        assert shift.grad is not None
        shift = ascent_step(shift, shift.grad, self.step_size, self.epsilon)
        for _ in range(self.steps - 1):
            shift.requires_grad_()
            shift = ascent_step(shift, micro.gradient(shift, View(shift)), self.step_size, self.epsilon)
        worst = micro.forward_backward(View(shift, weight=self.weight), last=True)
        return Outcome(clean.losses[0], worst.losses[0])
