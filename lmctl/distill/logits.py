"""Knowledge distillation on logits with temperature (Hinton et al. 2015, "Distilling the knowledge in a neural
network", section 2; for masked language models Sanh et al. 2019, "DistilBERT").

Both distributions have temperature T, and their divergence is multiplied by T^2, because gradients of soft targets
scale as 1 / T^2: so the term keeps its weight when T changes (Hinton et al., section 2). For multi-label classification
each class is a distribution of its own; regression uses the squared error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from lmctl.core.piecewise import check_curve, curve_at, points_of
from lmctl.distill.base import LogitLoss, LossContext, TeacherLogits
from lmctl.distill.weighted import Weighted

if TYPE_CHECKING:
    from torch import Tensor

DIVERGENCES = ("forward", "reverse", "js")


@dataclass(frozen=True, kw_only=True)
class Logits(Weighted, LogitLoss):
    """T^2 times the divergence of the student's distribution from the teacher's.

    `forward`: KL(teacher, student), mode-covering (Hinton et al. 2015). `reverse`: KL(student, teacher), mode-seeking
    (Gu et al. 2024, MiniLLM). `js`: generalised Jensen-Shannon divergence with `beta`, the teacher's share of the
    mixture (Agarwal et al. 2024, GKD, section 3).
    """

    divergence: str = "forward"
    temperature: Any = 2.0
    """A number, or points `[[progress, temperature], ...]` over the budget."""
    beta: float = 0.5
    top_k: Optional[int] = None
    """Only the teacher's most likely tokens, with both distributions renormalised over them; null: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_curve("temperature", self.temperature, self.between)
        if self.divergence not in DIVERGENCES:
            raise ValueError(f"divergence must be one of {', '.join(DIVERGENCES)}, got {self.divergence!r}")
        if any(value <= 0 for _, value in points_of("temperature", self.temperature)):
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if not 0 < self.beta < 1:
            raise ValueError(f"beta is a share between 0 and 1, got {self.beta}")
        if self.top_k is not None and self.top_k < 2:
            raise ValueError(f"top_k must be at least 2 (of one piece the probability is always 1), got {self.top_k}")

    def loss(self, student: Tensor, teacher: TeacherLogits, context: LossContext) -> Tensor:
        from lmctl.distill import kd_loss

        ours, theirs = kd_loss.aligned(student, teacher, self.top_k if context.kind == "class" else None)
        if context.kind == "number":
            return ((ours - theirs) ** 2).sum()
        temperature = curve_at(points_of("temperature", self.temperature), context.progress, self.between)
        logs = kd_loss.of_each_class if context.kind == "classes" else kd_loss.of_one_class
        q, p = logs(ours / temperature), logs(theirs / temperature)
        if self.divergence == "js":
            return temperature**2 * kd_loss.jensen_shannon(q, p, self.beta)
        return temperature**2 * (kd_loss.forward(q, p) if self.divergence == "forward" else kd_loss.reverse(q, p))
