"""Weight-only int8 quantisation after training: weights are dequantised for each product, a quarter of the memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmctl.precision.post_training import PostTraining

if TYPE_CHECKING:
    from lmctl.precision.stored_linear import Codec


@dataclass(frozen=True)
class Int8WeightOnly(PostTraining):
    """int8 weights with a scale per output channel; activations and products in the model's dtype."""

    def codec(self, dtype: str) -> Codec:
        from lmctl.precision.codecs import Int8Rows

        return Int8Rows(dtype, self.scale == "pow2")
