"""The contracts of the groups `precision` and `quantize`: in which numbers a run computes, and keeps its weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

from lmctl.core.component import Component
from lmctl.core.errors import ConfigError
from lmctl.optim.base import OptimSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lmctl.plan import Plan
    from lmctl.precision.scaling import LossScaler


class Precision(Component):
    """Group `precision`: number formats of parameters, products and updates. The defaults are those of float32: plain
    modules, plain updates, plain storage."""

    product: ClassVar[str | None] = None
    """The low-precision product that the self-proof must find in the first forward pass: "bf16", "int8", ..."""
    storage: ClassVar[str | None] = None
    """The format in which the self-proof must find weights kept: "int8", "nf4", ..."""
    least_decibel: ClassVar[float] = 20.0
    """The least signal-to-noise ratio, against float32, that the self-proof takes for an honest rounding."""

    def check(self, plan: Plan) -> Iterator[ConfigError]:
        reason = self.refuse_run(plan)
        if reason is not None:
            yield ConfigError(f"precision: {reason}")

    def refuse_run(self, plan: Plan) -> str | None:
        """Why it does not go with the rest of the run and what is nearest, or None; asked before any work."""
        return None

    def refuse(self, device: torch.device) -> str | None:
        """Why this device cannot do it and what is nearest, or None."""
        return None

    def convert(self, network: nn.Module, device: torch.device) -> list[str]:
        """Change the modules of a network that is loaded, still on the CPU, and soon on `device`, in place; returns
        what is worth saying about it. Names in its `state_dict` may change, those of parameters must not."""
        return []

    def products(self, device: torch.device) -> AbstractContextManager[Any]:
        """Inside it, matrix products run in this precision (autocast)."""
        from lmctl.precision.autocast import full_products

        return full_products()

    def reference(self, device: torch.device) -> AbstractContextManager[Any]:
        """Inside it, and outside of `products`, the same network computes in float32."""
        return nullcontext()

    def optimiser(self, spec: OptimSpec, learner: nn.Module, device: torch.device, seed: int) -> torch.optim.Optimizer:
        """The update rule of `spec`, for parameters as this precision keeps them. `seed` is the run's, the same in
        all processes: what is drawn from it must be, too."""
        return spec.optimiser(learner, device)

    def scaler(self, device: torch.device) -> LossScaler:
        """What guards the steps of a run."""
        from lmctl.precision.scaling import Unscaled

        return Unscaled()

    def restore(self, model: nn.Module) -> nn.Module:
        """`model`, or a copy, with plain float weights in plain layers, for export."""
        return model

    def table(self, device: torch.device) -> dict[str, str]:
        """dtypes by role: parameter, master, compute, accumulate, gradient, reduction, optimiser."""
        from lmctl.precision.autocast import dtype_table

        return dtype_table("fp32")


class Quantization(Component):
    """Group `quantize`: in what form the weights of a model that has learnt are kept (post-training quantisation)."""

    product: ClassVar[str | None] = None
    """The low-precision product that a forward pass must have, or the quantisation did nothing."""
    storage: ClassVar[str] = "int8"
    """The format in which weights must be found."""

    @abstractmethod
    def quantize(self, network: nn.Module, device: torch.device) -> list[str]:
        """Change the layers of a network that is on the CPU, and soon on `device`, in place; returns what is worth
        saying about it. ConfigError if there is nothing to change."""


def no_bf16(device: torch.device) -> str | None:
    """Why this device has no bf16, or None."""
    import torch

    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return "this GPU has no bf16 (it needs compute capability 8.0); nearest: precision=fp16"
    return None


def recurrent(what: str) -> str:
    """Why `what` cannot be kept in bf16."""
    return (
        f"bf16_pure is for networks of linear layers: torch's recurrent ones ({what}) take weights of one kind only; "
        "nearest: precision=bf16"
    )
