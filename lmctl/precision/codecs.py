"""Codecs of quantised weights: their storage format, and their forward and backward products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lmctl.precision.arithmetic import Int8Arithmetic, linear_forward, weight_gradient, without_autocast
from lmctl.precision.autocast import products_in
from lmctl.precision.rounding import QuantisedRows, quantise


@dataclass(frozen=True)
class FloatProducts:
    """Weights are dequantised for each product, which runs in "fp32" or "bf16"."""

    products: str

    def decode(self, kept: dict[str, Tensor], shape: torch.Size) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, kept: dict[str, Tensor], shape: torch.Size) -> Tensor:
        x = x.float() if self.products == "fp32" else x  # T5 casts inputs to the dtype that it finds on the weight
        return torch.nn.functional.linear(x, self.decode(kept, shape).to(x.dtype))

    def backward(
        self, gradient: Tensor, x: Tensor, kept: dict[str, Tensor], shape: torch.Size, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        gx = gw = None
        with products_in(self.products, x.device):  # the run's autocast context does not cover the backward pass
            if wanted[0]:
                gx = torch.matmul(gradient, self.decode(kept, shape).to(gradient.dtype))
            if wanted[1]:
                gw = torch.matmul(gradient.t(), x.to(gradient.dtype))
        return gx, gw


@dataclass(frozen=True)
class Int8Rows(FloatProducts):
    """int8 with a float32 scale per output channel; with `pow2` the scale is a power of two."""

    pow2: bool

    format: ClassVar[str] = "int8"

    def encode(self, weight: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        rows = quantise(weight, 1, self.pow2, noise)
        return {"int8": rows.values, "scale": rows.scale.squeeze(1)}

    def decode(self, kept: dict[str, Tensor], shape: torch.Size) -> Tensor:
        return kept["int8"].float().mul_(kept["scale"][:, None])


@dataclass(frozen=True)
class Int8RowsAndProducts(Int8Rows):
    """int8 storage, and int8 products as well. The weight's scales are multiplied into the output gradient, so that
    both products with the weight use it as it is stored."""

    stochastic: bool

    def forward(self, x: Tensor, kept: dict[str, Tensor], shape: torch.Size) -> Tensor:
        return linear_forward(
            x, QuantisedRows(kept["int8"], kept["scale"][:, None]), Int8Arithmetic(self.stochastic, self.pow2)
        )

    def backward(
        self, gradient: Tensor, x: Tensor, kept: dict[str, Tensor], shape: torch.Size, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        low, gx, gw = Int8Arithmetic(self.stochastic, self.pow2), None, None
        with without_autocast(x.device):
            noise = low.noise(gradient)
            if wanted[0]:
                folded = low.quantise_gradient(gradient * kept["scale"], 1, noise)
                gx = low.multiply(folded, QuantisedRows(kept["int8"], torch.ones_like(kept["scale"][:1, None])))
            if wanted[1]:
                gw = weight_gradient(low, gradient, x, noise)
        return gx, gw
