"""TF32 products on NVIDIA GPUs: fp32 parameters, operands rounded to 10 bits of mantissa by the tensor cores."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lmctl.precision.base import Precision

if TYPE_CHECKING:
    import torch

    from lmctl.plan import Plan

NEEDS = "tf32 needs an NVIDIA GPU of compute capability 8.0 or more"


@dataclass(frozen=True)
class Tf32(Precision):
    """fp32 parameters, TF32 products."""

    product: ClassVar[str | None] = "tf32"

    def refuse_run(self, plan: Plan) -> str | None:
        return f"{NEEDS}; nearest: precision=fp32" if plan.runner.on_cpu() else None

    def refuse(self, device: torch.device) -> str | None:
        import torch

        if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
            return None
        return f"{NEEDS}; nearest: precision=fp32"

    def products(self, device: torch.device) -> AbstractContextManager[Any]:
        from lmctl.precision.autocast import tf32_products

        return tf32_products()

    def reference(self, device: torch.device) -> AbstractContextManager[Any]:
        from lmctl.precision.autocast import full_products

        return full_products()

    def table(self, device: torch.device) -> dict[str, str]:
        from lmctl.precision.autocast import dtype_table

        return dtype_table("tf32")
