"""Attention distillation: losses on attention maps and value relations (maps: Jiao et al. 2020, "TinyBERT", section
3.1, equation 7; their divergence and value relations: Wang et al. 2020, "MiniLM", sections 3.1 and 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmctl.core.errors import ConfigError
from lmctl.distill.base import FeatureLoss, ModelShape
from lmctl.distill.layer_map import check_map, check_seen, matched
from lmctl.distill.weighted import Weighted

if TYPE_CHECKING:
    from lmctl.distill.feature_losses import AttentionLoss

METRICS = ("kl", "mse", "scores")


@dataclass(frozen=True, kw_only=True)
class Attention(Weighted, FeatureLoss):
    """Loss between the attention of matched layers, per head, mean over heads and layer pairs, summed over positions.
    `kl`: KL(teacher, student) of each position's map. `mse`: mean squared error of the maps. `scores`: mean squared
    error of the scores before the softmax, as in TinyBERT. `values` adds the KL divergence of value relations."""

    attends = True

    metric: str = "kl"
    layer_map: Any = "uniform"
    values: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_map(self.layer_map)
        if self.metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {self.metric!r}")

    def build(self, student: ModelShape, teacher: ModelShape) -> AttentionLoss:
        from lmctl.distill.feature_losses import AttentionLoss

        check_seen("attention", teacher, student, attends=True)
        if student.heads != teacher.heads:
            raise ConfigError(
                f"distill: attention is compared head by head, and the teacher has {teacher.heads} heads, the student "
                f"{student.heads}",
                f"model.heads={teacher.heads}, or distill=minilm, which cuts both into the same number of heads",
            )
        return AttentionLoss(matched(self.layer_map, teacher, student, lowest=1), self.metric, self.values)
