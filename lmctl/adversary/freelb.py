"""`adversary=freelb`: FreeLB, where parameters use the gradient of every ascent step (Zhu et al. 2020, "FreeLB:
Enhanced adversarial training for natural language understanding", algorithm 1).

From a random start in the ball, each of K passes adds 1/K of its gradients to the parameters and gives the perturbation
its next step, so that a pass costs no more than one of plain training. All use the same dropout masks (section 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass

from lmctl.adversary.base import Adversary, AttackedBatch, Outcome, View
from lmctl.config.schema import positive


@dataclass(frozen=True)
class FreeLB(Adversary):
    """Loss = mean over `steps` passes. The recorded loss is that of the first pass, at the random start, because no
    pass sees unperturbed rows; the recorded adversarial loss is that of the last one."""

    epsilon: float = 1.0
    steps: int = 3
    step_size: float = 0.5
    start: float = 0.1

    def __post_init__(self) -> None:
        positive(epsilon=self.epsilon, steps=self.steps, step_size=self.step_size)
        if self.start < 0:
            raise ValueError(f"start must not be negative, got {self.start}")

    @property
    def passes(self) -> float:
        return float(self.steps)

    def forward_backward(self, micro: AttackedBatch) -> Outcome:
        from lmctl.adversary.ascent import ascent_step, project

        shift, reports = project(self.start * micro.random_shift(), self.epsilon), []
        for step in range(1, self.steps + 1):
            shift = shift.requires_grad_()
            view = View(shift, weight=1 / self.steps)
            reports.append(micro.forward_backward(view, last=step == self.steps))
            if step < self.steps:
                assert shift.grad is not None
                shift = ascent_step(shift, shift.grad, self.step_size, self.epsilon)
        return Outcome(reports[0].losses[0], reports[-1].losses[0])
