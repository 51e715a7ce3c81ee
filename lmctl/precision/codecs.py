"""How stored weights are kept, and how their products are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lmctl.precision.arithmetic import Int8, linear_forward, plainly, weight_gradient
from lmctl.precision.autocast import products_in
from lmctl.precision.rounding import Rows, quantise


@dataclass(frozen=True)
class FloatProducts:
    """Products in "fp32" or "bf16" from weights that are made float again for the moment."""

    products: str

    def decode(self, kept: dict[str, Tensor], shape: torch.Size) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, kept: dict[str, Tensor], shape: torch.Size) -> Tensor:
        return torch.nn.functional.linear(x, self.decode(kept, shape).to(x.dtype))

    def backward(
        self, gradient: Tensor, x: Tensor, kept: dict[str, Tensor], shape: torch.Size, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        gx = gw = None
        with products_in(self.products, x.device):  # the backward pass is outside of the run's own context
            if wanted[0]:
                gx = torch.matmul(gradient, self.decode(kept, shape).to(gradient.dtype))
            if wanted[1]:
                gw = torch.matmul(gradient.t(), x.to(gradient.dtype))
        return gx, gw


@dataclass(frozen=True)
class Int8Rows(FloatProducts):
    """int8 with a float32 scale per output channel; a power of two with `pow2`."""

    pow2: bool

    format: ClassVar[str] = "int8"

    def encode(self, weight: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        rows = quantise(weight, 1, self.pow2, noise)
        return {"int8": rows.values, "scale": rows.scale.squeeze(1)}

    def decode(self, kept: dict[str, Tensor], shape: torch.Size) -> Tensor:
        return kept["int8"].float().mul_(kept["scale"][:, None])


@dataclass(frozen=True)
class Int8RowsAndProducts(Int8Rows):
    """The same, and products in int8 as well. The weight's scales are folded into the output gradient, so that the
    weight enters its two products as it is kept."""

    stochastic: bool

    def forward(self, x: Tensor, kept: dict[str, Tensor], shape: torch.Size) -> Tensor:
        return linear_forward(x, Rows(kept["int8"], kept["scale"][:, None]), Int8(self.stochastic, self.pow2))

    def backward(
        self, gradient: Tensor, x: Tensor, kept: dict[str, Tensor], shape: torch.Size, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        low, gx, gw = Int8(self.stochastic, self.pow2), None, None
        with plainly(x.device):
            noise = low.noise(gradient)
            if wanted[0]:
                folded = low.quantise_gradient(gradient * kept["scale"], 1, noise)
                gx = low.multiply(folded, Rows(kept["int8"], torch.ones_like(kept["scale"][:1, None])))
            if wanted[1]:
                gw = weight_gradient(low, gradient, x, noise)
        return gx, gw
