"""`adversary=fgm`: one step against the network (Miyato et al. 2017, "Adversarial training methods for
semi-supervised text classification", section 3).

The worst shift of a row's embeddings within a small ball is, to first order, r = epsilon g / ||g|| with g the gradient
of the loss by them. The paper normalises the embeddings first (section 2); here they stay as they are, so that epsilon
is to be seen against how long a row's embeddings are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmctl.config.schema import positive
from lmctl.core.passes import Outcome, Pass


@dataclass(frozen=True)
class FastGradient:
    """The loss of the rows, and `weight` times that of the rows shifted by `epsilon` along the gradient."""

    epsilon: float = 1.0
    weight: float = 1.0

    backwards: ClassVar[float] = 2.0
    needs_dropout: ClassVar[bool] = False

    def __post_init__(self) -> None:
        positive(epsilon=self.epsilon, weight=self.weight)

    def drive(self, micro: Pass) -> Outcome:
        from lmctl.adversary.ascent import direction

        shift = micro.zeros()
        clean = micro.forward(shift)
        micro.backward(micro.loss(clean.terms))
        assert shift.grad is not None
        worse = micro.forward(self.epsilon * direction(shift.grad), last=True)
        micro.backward(self.weight * micro.loss(worse.terms))
        return Outcome(clean.terms, worse.terms)
