"""bf16 mixed precision: bfloat16 products, float32 parameters (Kalamkar et al. 2019, "A study of BFLOAT16 for deep
learning")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lmctl.precision.base import no_bf16
from lmctl.precision.half import HalfPrecision

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Bf16(HalfPrecision):
    """fp32 parameters, bf16 products; no loss scaling, because bf16 has the range of fp32."""

    product: ClassVar[str | None] = "bf16"

    @property
    def dtype(self) -> torch.dtype:
        import torch

        return torch.bfloat16

    def refuse(self, device: torch.device) -> str | None:
        return no_bf16(device)
