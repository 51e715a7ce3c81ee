"""int8 training with int8 weights and all three products in int8: `int8_weights` and `int8` together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lmctl.precision.int8_weights import Int8Weights

if TYPE_CHECKING:
    import torch

    from lmctl.precision.stored_linear import Codec


@dataclass(frozen=True)
class Int8Full(Int8Weights):
    """int8 weights and int8 products in every linear layer except heads."""

    product: ClassVar[str | None] = "int8"

    stochastic: bool = True

    def codec(self) -> Codec:
        from lmctl.precision.codecs import Int8RowsAndProducts

        return Int8RowsAndProducts(self.float_products, self.scale == "pow2", self.stochastic)

    def no_gain(self, device: torch.device) -> str | None:
        from lmctl.precision.int8_product import no_gain

        return no_gain(device)

    def table(self, device: torch.device) -> dict[str, str]:
        from lmctl.precision.autocast import dtype_table

        compute = f"int8 in linear layers, {self.float_products} elsewhere"
        return dtype_table(compute, roles={"accumulate": "int32", **self.roles()})
