"""`adversary=pgd`: several steps against the network (Madry et al. 2018, "Towards deep learning models resistant to
adversarial attacks", section 2.1).

Each step goes along the gradient and back into the ball; parameters learn from where the last one ends. The paper
learns from such rows alone, and may start at random: here the rows as they are count as well, as in Miyato et al.
2017, and are where the first step starts, so that their pass serves twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmctl.adversary.base import Adversary, AttackedBatch, Outcome, View
from lmctl.config.schema import positive


@dataclass(frozen=True)
class ProjectedGradient(Adversary):
    """The loss of the rows, and `weight` times that of the rows after `steps` steps of length `step_size`, never
    further away than `epsilon`."""

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
        from lmctl.adversary.ascent import climbed

        shift = micro.zeros()
        clean = micro.forward_backward(View(shift))
        assert shift.grad is not None
        shift = climbed(shift, shift.grad, self.step_size, self.epsilon)
        for _ in range(self.steps - 1):
            shift.requires_grad_()
            shift = climbed(shift, micro.gradient(shift, View(shift)), self.step_size, self.epsilon)
        worst = micro.forward_backward(View(shift, weight=self.weight), last=True)
        return Outcome(clean.losses[0], worst.losses[0])
