"""Mixed precision with half-precision products over float32 parameters: what bf16 and fp16 have in common."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from lmctl.optim.base import OptimSpec
from lmctl.precision.base import Precision

if TYPE_CHECKING:
    import torch
    from torch import nn


class HalfPrecision(Precision):
    """fp32 parameters, half-precision products: torch's autocast, and on CPUs layers that keep their weights' half
    copies between two updates."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The dtype of the products."""

    def convert(self, network: nn.Module, device: torch.device) -> list[str]:
        from lmctl.precision.autocast import on_this_cpu
        from lmctl.precision.half_linear import keep_half_copies
        from lmctl.precision.half_norms import norms_in_half
        from lmctl.precision.layer_choice import linear_layers

        if on_this_cpu(device):
            keep_half_copies(layer for _, layer in linear_layers(network))
            norms_in_half(network)
        reason = self.no_gain(device)
        return [] if reason is None else [reason]

    def products(self, device: torch.device) -> AbstractContextManager[Any]:
        from lmctl.precision.autocast import half_products

        return half_products(self.dtype, device)

    def gathered(self, device: torch.device) -> torch.dtype | None:
        """Half precision on a GPU, whose autocast would keep a half copy of every layer for the backward pass."""
        return None if device.type == "cpu" else self.dtype

    def optimiser(self, spec: OptimSpec, learner: nn.Module, device: torch.device, seed: int) -> torch.optim.Optimizer:
        from lmctl.precision.half_linear import cast_after_steps

        optimizer = spec.optimiser(learner, device)
        cast_after_steps(optimizer, learner)
        return optimizer

    def no_gain(self, device: torch.device) -> str | None:
        from lmctl.precision.autocast import no_gain

        return no_gain(self.dtype, device)

    def table(self, device: torch.device) -> dict[str, str]:
        from lmctl.precision.autocast import dtype_table
        from lmctl.precision.emulation import NAMES

        return dtype_table(NAMES[self.dtype], device, self.dtype)
