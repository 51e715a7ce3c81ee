"""fp8 training: fp8 products in linear layers, fp32 parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lmctl.optim.base import OptimSpec
from lmctl.precision.linear_layers import LinearLayers

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lmctl.plan import Plan

NEEDS = (
    "fp8 needs an NVIDIA GPU of compute capability 8.9 or more (Ada, Hopper); nearest: precision=bf16, or "
    "precision.emulate=true for its numerics without its speed"
)


@dataclass(frozen=True)
class Fp8(LinearLayers):
    """fp32 parameters, fp8 products in every linear layer except heads, bf16 products elsewhere."""

    product: ClassVar[str | None] = "fp8"
    least_decibel: ClassVar[float] = 10.0
    """3 bits of mantissa: measured were 33 dB over 12 layers of an untrained BERT, but 20 over those of a Llama."""

    scale: str = "tensor"
    emulate: bool = False
    float_products: str = "bf16"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale not in ("tensor", "row"):
            raise ValueError(f"scale must be tensor or row, got {self.scale!r}")

    def refuse_run(self, plan: Plan) -> str | None:
        if not self.emulate and plan.runner.on_cpu():
            return NEEDS
        return super().refuse_run(plan)

    def refuse(self, device: torch.device) -> str | None:
        import torch

        if self.emulate or (device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)):
            return super().refuse(device)
        return NEEDS

    def convert(self, network: nn.Module, device: torch.device) -> list[str]:
        from lmctl.precision import fp8_arithmetic
        from lmctl.precision.layer_choice import choose
        from lmctl.precision.linear import QuantisedOnce, low_precision_products

        choice, inputs = choose(network, self.exclude, self.name), QuantisedOnce()
        for module in choice.chosen.values():
            low_precision_products(module, fp8_arithmetic.Fp8Arithmetic(self.scale == "row", self.emulate), inputs)
        return choice.say("fp8 products" + (", emulated" if self.emulate else ""))

    def optimiser(self, spec: OptimSpec, learner: nn.Module, device: torch.device, seed: int) -> torch.optim.Optimizer:
        from lmctl.precision.linear import announce_updates

        optimizer = super().optimiser(spec, learner, device, seed)
        announce_updates(optimizer, learner)
        return optimizer

    def table(self, device: torch.device) -> dict[str, str]:
        from lmctl.precision.autocast import dtype_table

        how = " (rounded operands, fp32 product: emulated)" if self.emulate else ""
        return dtype_table(f"fp8 (E4M3, gradients E5M2) in linear layers{how}, {self.float_products} elsewhere")
