"""`adversary=rdrop`: two passes with other dropout must give the same answer (Liang et al. 2021, "R-Drop: Regularized
dropout for neural networks", section 2.1).

The loss is the mean of the two passes' and `weight` times the mean of both directions of the divergence between them,
as in the authors' code; in their paper the two losses are added up, which makes its alpha twice this weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmctl.config.schema import positive
from lmctl.core.passes import Outcome, Pass


@dataclass(frozen=True)
class RDrop:
    """Two networks that dropout makes of one learn to agree."""

    weight: float = 1.0

    backwards: ClassVar[float] = 2.0
    needs_dropout: ClassVar[bool] = True

    def __post_init__(self) -> None:
        positive(weight=self.weight)

    def drive(self, micro: Pass) -> Outcome:
        from lmctl.adversary.divergence import divergences

        one = micro.forward(logits=True)
        other = micro.forward(fresh=True, last=True, logits=True)
        apart = divergences(micro.batch, one.logits, other.logits)
        mean = {name: (term + other.terms[name]) / 2 for name, term in one.terms.items()}
        micro.backward(micro.loss(mean) + self.weight * micro.penalty(apart))
        return Outcome(mean, apart)
