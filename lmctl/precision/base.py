"""What every precision does unless it says otherwise: plain modules, plain updates, float32 storage."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

from lmctl.core.numerics import LossScaler, RunParts
from lmctl.core.steps import OptimSpec

if TYPE_CHECKING:
    import torch
    from torch import nn


class Standard:
    """The defaults of the group `precision`. A component derives from it and overrides what differs."""

    product: ClassVar[str | None] = None
    """The low-precision product that the self-proof must find in the first forward pass: "bf16", "int8", ..."""
    storage: ClassVar[str | None] = None
    """The format in which the self-proof must find weights kept: "int8", "nf4", ..."""
    least_decibel: ClassVar[float] = 20.0
    """The least signal-to-noise ratio, against float32, that the self-proof takes for an honest rounding."""

    def refuse(self, device: torch.device) -> str | None:
        return None

    def refuse_run(self, run: RunParts) -> str | None:
        return None

    def convert(self, network: nn.Module, device: torch.device) -> list[str]:
        return []

    def products(self, device: torch.device) -> AbstractContextManager[Any]:
        from lmctl.precision.autocast import full_products

        return full_products()

    def reference(self, device: torch.device) -> AbstractContextManager[Any]:
        return nullcontext()

    def optimiser(self, spec: OptimSpec, learner: nn.Module, device: torch.device, seed: int) -> torch.optim.Optimizer:
        return spec.optimiser(learner, device)

    def scaler(self, device: torch.device) -> LossScaler:
        from lmctl.precision.scaling import Unscaled

        return Unscaled()

    def restore(self, model: nn.Module) -> nn.Module:
        return model

    def table(self, device: torch.device) -> dict[str, str]:
        from lmctl.precision.autocast import dtype_table

        return dtype_table("fp32")


def no_bf16(device: torch.device) -> str | None:
    """Why this device has no bf16, or None."""
    import torch

    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return "this GPU has no bf16 (it needs compute capability 8.0); nearest: precision=fp16"
    return None
