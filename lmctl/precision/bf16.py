"""bfloat16 products over float32 parameters (Kalamkar et al. 2019, "A study of BFLOAT16 for deep learning")."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmctl.core.types import LossScaler

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Bf16:
    """fp32 parameters, bf16 products; fp32's range, so no loss scaling."""

    def refuse(self, device: torch.device) -> str | None:
        import torch

        if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
            return "this GPU has no bf16 (it needs compute capability 8.0); nearest: precision=fp16"
        return None

    def products(self, device: torch.device) -> AbstractContextManager[Any]:
        import torch

        from lmctl.precision.autocast import half_products

        return half_products(torch.bfloat16, device)

    def scaler(self, device: torch.device) -> LossScaler:
        from lmctl.precision.scaling import Unscaled

        return Unscaled()

    def table(self, device: torch.device) -> dict[str, str]:
        import torch

        from lmctl.precision.autocast import dtype_table

        return dtype_table("bf16", device, torch.bfloat16)
