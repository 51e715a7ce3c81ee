"""QLoRA: LoRA over a frozen NF4 model, with fp32 adapters (Dettmers et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lmctl.precision.int8_lora import Int8Lora

if TYPE_CHECKING:
    from lmctl.precision.stored_linear import Codec


@dataclass(frozen=True)
class Nf4Lora(Int8Lora):
    """Frozen NF4 weights in every linear layer except heads, float products, fp32 adapters."""

    storage: ClassVar[str | None] = "nf4"
    imports: ClassVar[tuple[str, ...]] = ("bitsandbytes",)
    least_decibel: ClassVar[float] = 15.0

    def codec(self) -> Codec:
        from lmctl.precision.nf4 import Nf4Blocks

        return Nf4Blocks(self.float_products)
