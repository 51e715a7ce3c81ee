"""int8 training: all three products of every linear layer are int8 x int8 -> int32 (fixed-point arithmetic).

Symmetric scales per token and per channel, as in SwitchBack (Wortsman et al. 2023, "Stable and low-precision training
for large-scale vision-language models", section 2), but with the weight gradient in int8 as well, for which the output
gradient is rounded stochastically (Gupta et al. 2015). Weights, gradients and updates are float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lmctl.optim.base import OptimSpec
from lmctl.precision.linear_layers import LinearLayers, check_scale

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Int8(LinearLayers):
    """fp32 parameters, int8 products in every linear layer except heads."""

    product: ClassVar[str | None] = "int8"

    stochastic: bool = True
    scale: str = "float"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scale(self.scale)

    def no_gain(self, device: torch.device) -> str | None:
        from lmctl.precision.int8_product import no_gain

        return no_gain(device)

    def convert(self, network: nn.Module, device: torch.device) -> list[str]:
        from lmctl.precision import arithmetic
        from lmctl.precision.layer_choice import choose
        from lmctl.precision.linear import QuantisedOnce, low_precision_products

        choice, inputs = choose(network, self.exclude, self.name), QuantisedOnce()
        for module in choice.chosen.values():
            low_precision_products(module, arithmetic.Int8Arithmetic(self.stochastic, self.scale == "pow2"), inputs)
        return choice.say("int8 products")

    def optimiser(self, spec: OptimSpec, learner: nn.Module, device: torch.device, seed: int) -> torch.optim.Optimizer:
        from lmctl.precision.linear import announce_updates

        optimizer = super().optimiser(spec, learner, device, seed)
        announce_updates(optimizer, learner)
        return optimizer

    def table(self, device: torch.device) -> dict[str, str]:
        from lmctl.precision.autocast import dtype_table

        return dtype_table(f"int8 in linear layers, {self.float_products} elsewhere", roles={"accumulate": "int32"})
