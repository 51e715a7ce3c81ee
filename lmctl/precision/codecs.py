"""Codecs of quantised weights: their storage format, and their forward and backward products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor

from lmctl.kernels.plain.quantise import QuantisedRows, quantise
from lmctl.kernels.quantise import quantise_rows
from lmctl.precision.arithmetic import Int8Arithmetic, as_matrix, output_dtype, weight_gradient, without_autocast
from lmctl.precision.autocast import products_in

Saved: TypeAlias = tuple[Tensor, ...]


class Forward(NamedTuple):
    """An output, and what the weight's gradient needs of the input."""

    output: Tensor
    saved: Saved


@dataclass(frozen=True)
class FloatProducts:
    """Weights are dequantised for each product, which runs in "fp32" or "bf16"."""

    products: str

    def decode(self, kept: dict[str, Tensor], shape: torch.Size) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, kept: dict[str, Tensor], shape: torch.Size, learns: bool) -> Forward:
        saved = (as_matrix(x),) if learns else ()
        x = x.float() if self.products == "fp32" else x  # T5 casts inputs to the dtype that it finds on the weight
        return Forward(torch.nn.functional.linear(x, self.decode(kept, shape).to(x.dtype)), saved)

    def backward(
        self, gradient: Tensor, saved: Saved, kept: dict[str, Tensor], shape: torch.Size, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        gx = gw = None
        with products_in(self.products, gradient.device):  # the run's autocast context does not cover the backward pass
            if wanted[0]:
                gx = torch.matmul(gradient, self.decode(kept, shape).to(gradient.dtype))
            if wanted[1]:
                (x,) = saved
                gw = torch.matmul(gradient.t(), x.to(gradient.dtype))
        return gx, gw


@dataclass(frozen=True)
class Int8Rows(FloatProducts):
    """int8 with a float32 scale per output channel; with `pow2` the scale is a power of two."""

    pow2: bool

    format: ClassVar[str] = "int8"

    def encode(self, weight: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        rows = quantise_rows(weight, self.pow2) if noise is None else quantise(weight, 1, self.pow2, noise)
        return {"int8": rows.values, "scale": rows.scale.squeeze(1)}

    def decode(self, kept: dict[str, Tensor], shape: torch.Size) -> Tensor:
        return kept["int8"].float().mul_(kept["scale"][:, None])


@dataclass(frozen=True)
class Int8RowsAndProducts(Int8Rows):
    """int8 storage, and int8 products as well. The weight's scales are multiplied into the output gradient, so that
    both products with the weight use it as it is stored."""

    stochastic: bool

    def forward(self, x: Tensor, kept: dict[str, Tensor], shape: torch.Size, learns: bool) -> Forward:
        low, weight = self._arithmetic(), QuantisedRows(kept["int8"], kept["scale"][:, None])
        dtype = output_dtype(x)
        with without_autocast(x.device):
            rows, columns = low.quantise(as_matrix(x), learns)
            y = low.multiply(rows, weight.t(), None, dtype)
        return Forward(y.view(*x.shape[:-1], y.shape[-1]), columns or ())

    def backward(
        self, gradient: Tensor, saved: Saved, kept: dict[str, Tensor], shape: torch.Size, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        low, gx, gw = self._arithmetic(), None, None
        with without_autocast(gradient.device):
            if wanted[0]:
                folded = low.quantise_gradient(gradient * kept["scale"]).rows
                weight = QuantisedRows(kept["int8"], kept["scale"].new_ones(1, shape[1]))
                gx = low.multiply(folded, weight, None, torch.float32)
            if wanted[1]:
                gw = weight_gradient(low, low.quantise_gradient(gradient), QuantisedRows(*saved), torch.float32)
        return gx, gw

    def _arithmetic(self) -> Int8Arithmetic:
        return Int8Arithmetic(self.stochastic, self.pow2)
