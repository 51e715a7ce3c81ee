"""Base classes of the groups `precision` (mixed and low-precision training) and `quantize` (post-training
quantisation)."""

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
    """Group `precision`: number formats of parameters, products and updates. The defaults are float32: plain modules,
    plain optimiser, plain storage."""

    product: ClassVar[str | None] = None
    """The low-precision product that the precision proof must find in the first forward pass: "bf16", "int8", ..."""
    storage: ClassVar[str | None] = None
    """The storage format of weights that the precision proof must find: "int8", "nf4", ..."""
    chooses: ClassVar[bool] = False
    """Whether it stands for another one, which is chosen when a training run begins."""
    least_decibel: ClassVar[float] = 20.0
    """Minimum signal-to-noise ratio in dB, against float32, for the precision proof to pass."""

    def check(self, plan: Plan) -> Iterator[ConfigError]:
        reason = self.refuse_run(plan)
        if reason is not None:
            yield ConfigError(f"precision: {reason}")

    def refuse_run(self, plan: Plan) -> str | None:
        """Why it is not compatible with the rest of the run, with the nearest alternative, or None; before any work."""
        return None

    def refuse(self, device: torch.device) -> str | None:
        """Why this device does not support it, with the nearest alternative, or None."""
        return None

    def no_gain(self, device: torch.device) -> str | None:
        """Why it makes training on this device no faster than float32, with the nearest alternative, or None. For
        people: it is allowed all the same."""
        return None

    def remarks(self, plan: Plan, device: torch.device) -> list[str]:
        """What else `lmctl plan` should say about it on this device."""
        return []

    def convert(self, network: nn.Module, device: torch.device) -> list[str]:
        """Convert the modules of a loaded network, in place. The network is on the CPU and will move to `device`.
        Returns lines for the user. Keys of its `state_dict` may change, names of parameters must not."""
        return []

    def products(self, device: torch.device) -> AbstractContextManager[Any]:
        """Context (autocast) in which matrix products run in this precision."""
        from lmctl.precision.autocast import full_products

        return full_products()

    def reference(self, device: torch.device) -> AbstractContextManager[Any]:
        """Context in which, outside of `products`, the same network computes in float32."""
        return nullcontext()

    def gathered(self, device: torch.device) -> torch.dtype | None:
        """The dtype in which FSDP gathers a layer's weights on this device; None: as they are stored."""
        return None

    def optimiser(self, spec: OptimSpec, learner: nn.Module, device: torch.device, seed: int) -> torch.optim.Optimizer:
        """The optimiser of `spec` for parameters as this precision stores them. `seed` is the run's, the same in all
        processes, so that random numbers drawn from it are the same, too."""
        return spec.optimiser(learner, device)

    def scaler(self, device: torch.device) -> LossScaler:
        """The loss scaler of a run."""
        from lmctl.precision.scaling import Unscaled

        return Unscaled()

    def restore(self, model: nn.Module) -> nn.Module:
        """`model`, or a copy, with float weights in plain layers, for export."""
        return model

    def table(self, device: torch.device) -> dict[str, str]:
        """dtypes by role: parameter, master, compute, accumulate, gradient, reduction, optimiser."""
        from lmctl.precision.autocast import dtype_table

        return dtype_table("fp32")


class Quantization(Component):
    """Group `quantize`: post-training quantisation, the storage format of a trained model's weights."""

    product: ClassVar[str | None] = None
    """The low-precision product that a forward pass must contain; otherwise the quantisation had no effect."""
    storage: ClassVar[str] = "int8"
    """The storage format that weights must have."""

    @abstractmethod
    def quantize(self, network: nn.Module, device: torch.device) -> list[str]:
        """Quantise the layers of a network, in place. The network is on the CPU and will move to `device`. Returns
        lines for the user. ConfigError if there is no layer to quantise."""


def no_bf16(device: torch.device) -> str | None:
    """Why this device does not support bf16, or None."""
    import torch

    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return "this GPU has no bf16 (it needs compute capability 8.0); nearest: precision=fp16"
    return None


def recurrent(what: str) -> str:
    """Why a recurrent model (`what`) cannot have bf16 weights."""
    return (
        f"bf16_pure is for networks of linear layers: torch's recurrent ones ({what}) take weights of one kind only; "
        "nearest: precision=bf16"
    )
