"""Single precision throughout, TF32 off."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmctl.core.types import LossScaler

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Fp32:
    """fp32 parameters, fp32 products."""

    def refuse(self, device: torch.device) -> str | None:
        return None

    def products(self, device: torch.device) -> AbstractContextManager[Any]:
        import torch

        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        return nullcontext()

    def scaler(self, device: torch.device) -> LossScaler:
        from lmctl.precision.scaling import Unscaled

        return Unscaled()

    def table(self, device: torch.device) -> dict[str, str]:
        from lmctl.precision.autocast import dtype_table

        return dtype_table("fp32", device, None)
