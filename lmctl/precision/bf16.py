"""bf16 mixed precision: bfloat16 products, float32 parameters (Kalamkar et al. 2019, "A study of BFLOAT16 for deep
learning")."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lmctl.precision.base import Precision, no_bf16

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Bf16(Precision):
    """fp32 parameters, bf16 products; no loss scaling, because bf16 has the range of fp32."""

    product: ClassVar[str | None] = "bf16"

    def refuse(self, device: torch.device) -> str | None:
        return no_bf16(device)

    def pays(self, device: torch.device) -> bool:
        import torch

        from lmctl.precision.autocast import emulated

        return not emulated(torch.bfloat16, device)

    def products(self, device: torch.device) -> AbstractContextManager[Any]:
        import torch

        from lmctl.precision.autocast import half_products

        return half_products(torch.bfloat16, device)

    def table(self, device: torch.device) -> dict[str, str]:
        import torch

        from lmctl.precision.autocast import dtype_table

        return dtype_table("bf16", device, torch.bfloat16)
