"""fp16 mixed precision: float16 products, float32 parameters, dynamic loss scaling (Micikevicius et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lmctl.precision.half import HalfPrecision

if TYPE_CHECKING:
    import torch

    from lmctl.plan import Plan
    from lmctl.precision.scaling import LossScaler


@dataclass(frozen=True)
class Fp16(HalfPrecision):
    """fp32 parameters, fp16 products, dynamic loss scaling; on CPUs as well."""

    product: ClassVar[str | None] = "fp16"

    initial_scale: float = 65536.0
    growth_interval: int = 2000

    def __post_init__(self) -> None:
        if self.initial_scale < 1:
            raise ValueError(f"initial_scale must be at least 1, got {self.initial_scale}")
        if self.growth_interval < 1:
            raise ValueError(f"growth_interval must be at least 1, got {self.growth_interval}")

    @property
    def dtype(self) -> torch.dtype:
        import torch

        return torch.float16

    def refuse_run(self, plan: Plan) -> str | None:
        import torch

        from lmctl.precision.autocast import emulated

        if plan.compile and plan.runner.on_cpu() and emulated(self.dtype, torch.device("cpu")):
            return "fp16's gradients overflow in compiled code on this CPU; nearest: compile=false, or precision=bf16"
        return super().refuse_run(plan)

    def scaler(self, device: torch.device) -> LossScaler:
        from lmctl.precision.scaling import DynamicScale

        return DynamicScale(device, self.initial_scale, self.growth_interval)
