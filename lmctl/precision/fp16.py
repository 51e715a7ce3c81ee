"""fp16 mixed precision: float16 products, float32 parameters, dynamic loss scaling (Micikevicius et al. 2018)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lmctl.precision.base import Precision

if TYPE_CHECKING:
    import torch

    from lmctl.precision.scaling import LossScaler


@dataclass(frozen=True)
class Fp16(Precision):
    """fp32 parameters, fp16 products, dynamic loss scaling; on CPUs as well."""

    product: ClassVar[str | None] = "fp16"

    initial_scale: float = 65536.0
    growth_interval: int = 2000

    def __post_init__(self) -> None:
        if self.initial_scale < 1:
            raise ValueError(f"initial_scale must be at least 1, got {self.initial_scale}")
        if self.growth_interval < 1:
            raise ValueError(f"growth_interval must be at least 1, got {self.growth_interval}")

    def pays(self, device: torch.device) -> bool:
        import torch

        from lmctl.precision.autocast import emulated

        return not emulated(torch.float16, device)

    def products(self, device: torch.device) -> AbstractContextManager[Any]:
        import torch

        from lmctl.precision.autocast import half_products

        return half_products(torch.float16, device)

    def scaler(self, device: torch.device) -> LossScaler:
        from lmctl.precision.scaling import DynamicScale

        return DynamicScale(device, self.initial_scale, self.growth_interval)

    def table(self, device: torch.device) -> dict[str, str]:
        import torch

        from lmctl.precision.autocast import dtype_table

        return dtype_table("fp16", device, torch.float16)
