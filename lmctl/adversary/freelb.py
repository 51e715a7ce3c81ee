"""`adversary=freelb`: parameters learn from every step of the climb (Zhu et al. 2020, "FreeLB: Enhanced adversarial
training for natural language understanding", algorithm 1).

From a random start within the ball, each of K passes gives the parameters 1/K of its gradients and the shift its next
step, so that a pass costs no more than one of plain training. Dropout is the same in all of them (section 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmctl.config.schema import positive
from lmctl.core.passes import Outcome, Pass


@dataclass(frozen=True)
class FreeLB:
    """The mean loss of `steps` passes. What is recorded as the loss is that of the first one, at the random start:
    the rows as they are are never looked at; as adversarial, that of the last one."""

    epsilon: float = 1.0
    steps: int = 3
    step_size: float = 0.5
    start: float = 0.1

    needs_dropout: ClassVar[bool] = False

    def __post_init__(self) -> None:
        positive(epsilon=self.epsilon, steps=self.steps, step_size=self.step_size)
        if self.start < 0:
            raise ValueError(f"start must not be negative, got {self.start}")

    @property
    def backwards(self) -> float:
        return float(self.steps)

    def drive(self, micro: Pass) -> Outcome:
        from lmctl.adversary.ascent import climbed, projected

        shift = projected(self.start * micro.start(), self.epsilon).requires_grad_()
        first = seen = micro.forward(shift, last=self.steps == 1)
        for step in range(2, self.steps + 1):
            micro.backward(micro.loss(seen.terms) / self.steps)
            assert shift.grad is not None
            shift = climbed(shift, shift.grad, self.step_size, self.epsilon).requires_grad_()
            seen = micro.forward(shift, last=step == self.steps)
        micro.backward(micro.loss(seen.terms) / self.steps)
        return Outcome(first.terms, seen.terms)
