"""Hidden state distillation (Sun et al. 2019, "Patient knowledge distillation for BERT model compression", section 3.2;
projections: Jiao et al. 2020, "TinyBERT", equation 8; cosine of the last layer: Sanh et al. 2019, "DistilBERT").

All real positions count, where PKD uses the first one. A loss is the mean over units and layer pairs, summed over
positions, so that a weight means the same for any model size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmctl.core.errors import ConfigError
from lmctl.distill.base import FeatureLoss, ModelShape
from lmctl.distill.layer_map import check_map, check_seen, matched
from lmctl.distill.weighted import Weighted

if TYPE_CHECKING:
    from lmctl.distill.feature_losses import HiddenStateLoss

METRICS = ("mse", "cosine")


@dataclass(frozen=True, kw_only=True)
class Hidden(Weighted, FeatureLoss):
    """Distance of hidden states. `mse`: mean squared error. `cosine`: 1 minus cosine similarity, half the squared
    difference of normalised states that PKD uses. If hidden sizes differ the student's states are projected by a
    trained matrix for each layer pair."""

    metric: str = "mse"
    layer_map: Any = "uniform"
    embeddings: bool = False
    """Whether the embeddings are compared, too (TinyBERT, equation 9)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_map(self.layer_map)
        if self.metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {self.metric!r}")

    def build(self, student: ModelShape, teacher: ModelShape) -> HiddenStateLoss:
        from lmctl.distill.feature_losses import HiddenStateLoss

        check_seen("hidden", teacher, student, attends=False)
        pairs = matched(self.layer_map, teacher, student, lowest=0)
        if self.embeddings:
            pairs = {stack: [*([] if (0, 0) in some else [(0, 0)]), *some] for stack, some in pairs.items()}
        for side, who in enumerate((teacher, student)):
            if who.embedding is not None and any(pair[side] == 0 for some in pairs.values() for pair in some):
                raise ConfigError(
                    f"distill: embeddings cannot be compared, because those of {who.what} are {who.embedding} wide and "
                    f"its hidden states {who.width}",
                    "nearest: embeddings=false, and no layer 0 in layer_map",
                )
        return HiddenStateLoss(pairs, student.width, teacher.width, self.metric)
