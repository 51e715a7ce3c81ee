"""PowerSGD: low-rank gradient compression (Vogels et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmctl.compression.option import Option

if TYPE_CHECKING:
    from lmctl.compression.error_feedback import ErrorFeedback
    from lmctl.compression.exchange import Method
    from lmctl.compression.gradient_layout import GradientLayout
    from lmctl.compression.wire import Wire


@dataclass(frozen=True, kw_only=True)
class PowerSgd(Option):
    """Rank-r approximation of gradient matrices by one step of subspace iteration."""

    rank: int = 4
    """Rank r of the factors; 1 to 4 are usual, language models take up to 32."""
    warm_start: bool = True
    """Start from the last step's factors instead of random ones."""
    least_ratio: float = 2.0
    """Minimum compression ratio: matrices that shrink less are sent uncompressed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if self.least_ratio < 1:
            raise ValueError(f"least_ratio must be at least 1, got {self.least_ratio}")

    @property
    def describe(self) -> str:
        return f"PowerSGD of rank {self.rank}, {'error feedback' if self.error_feedback else 'no error feedback'}"

    def pays(self, shape: tuple[int, ...]) -> bool:
        from lmctl.compression.gradient_layout import matrix_shape

        rows, columns = matrix_shape(shape)
        rank = min(self.rank, rows, columns)
        return (rows + columns) * rank * self.least_ratio < rows * columns

    def method(self, layout: GradientLayout, wire: Wire, memory: ErrorFeedback) -> Method:
        from lmctl.compression.low_rank import LowRank

        return LowRank(layout.compressed, wire, self.rank, self.warm_start, memory)
