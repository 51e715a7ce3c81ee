"""MiniLM: self-attention relations of one layer (Wang et al. 2020, "MiniLM: Deep self-attention distillation for
task-agnostic compression"; Wang et al. 2021, "MiniLMv2: Multi-head self-attention relation distillation", section 3).

Queries, keys and values of all heads are concatenated and split again into relation heads, so that teacher and student
may differ in hidden size and heads. Compared are the relations between positions, softmax(A A^T / sqrt(d)).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Optional

from lmctl.core.errors import ConfigError
from lmctl.distill.base import FeatureLoss, ModelShape
from lmctl.distill.layer_map import check_seen, matched
from lmctl.distill.weighted import Weighted

if TYPE_CHECKING:
    from lmctl.distill.feature_losses import RelationLoss

RELATIONS = ("query", "key", "value", "attention")


@dataclass(frozen=True, kw_only=True)
class MiniLM(Weighted, FeatureLoss):
    """Sum over `relations` of KL(teacher, student), mean over relation heads, summed over positions. `query`, `key`,
    `value`: relations of each with itself (MiniLMv2); `attention`: of queries with keys (MiniLM, with `value`)."""

    attends = True

    relations: list[str] = field(default_factory=lambda: ["query", "key", "value"])
    relation_heads: Optional[int] = None
    """Number of relation heads; None: the teacher's number of attention heads."""
    teacher_layer: int = -1
    """Teacher layer. MiniLMv2 uses one above the middle of large teachers: 21 of 24, but 12 of 12."""
    student_layer: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [name for name in self.relations if name not in RELATIONS]
        if unknown or not self.relations:
            raise ValueError(f"relations are some of {', '.join(RELATIONS)}, got {self.relations}")
        if self.relation_heads is not None and self.relation_heads < 1:
            raise ValueError(f"relation_heads must be above 0, got {self.relation_heads}")

    def build(self, student: ModelShape, teacher: ModelShape) -> RelationLoss:
        from lmctl.distill.feature_losses import RelationLoss

        check_seen("minilm", teacher, student, attends=True)
        heads = self.relation_heads or teacher.heads
        for who in (student, teacher):
            if who.width % heads:
                near = next(n for n in range(heads, 0, -1) if student.width % n == 0 and teacher.width % n == 0)
                raise ConfigError(
                    f"distill: relation_heads={heads} do not divide the {who.width} units of {who.what}",
                    f"nearest: distill.terms.minilm.relation_heads={near}",
                )
        pairs = matched([[self.teacher_layer, self.student_layer]], teacher, student, lowest=1)
        return RelationLoss(pairs, tuple(self.relations), heads)
