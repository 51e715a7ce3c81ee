"""Low-precision linear layers: three quantised products over a float32 weight, forward and backward.

`low_precision_products` converts an existing layer by changing its class. Parameters, their names, hooks and positions
in the network stay the same, so checkpoints, export and adapters need no special case.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D

from lmctl.precision.arithmetic import Arithmetic, as_matrix, linear_forward, weight_gradient, without_autocast
from lmctl.precision.counting import in_reference


class LowProduct(torch.autograd.Function):
    """Autograd function y = x w^T for x [..., I] and w [O, I], with all three products in `arithmetic`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, arithmetic: Arithmetic) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.arithmetic = arithmetic
        return linear_forward(x, arithmetic.quantise(weight, 1), arithmetic)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        low: Arithmetic = ctx.arithmetic
        g, gx, gw = as_matrix(gradient), None, None
        with without_autocast(g.device):
            noise = low.noise(g)
            if ctx.needs_input_grad[0]:
                gx = low.multiply(low.quantise_gradient(g, 1, noise), low.quantise(weight, 0))
                gx = gx.view(x.shape).to(x.dtype)
            if ctx.needs_input_grad[1]:
                gw = weight_gradient(low, g, as_matrix(x), noise).to(weight.dtype)
        return gx, gw, None


class LowLinear(nn.Linear):
    """`nn.Linear` with products in `arithmetic`."""

    arithmetic: Arithmetic

    def forward(self, x: Tensor) -> Tensor:
        if in_reference():
            return super().forward(x)
        y = LowProduct.apply(x, self.weight, self.arithmetic)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class LowConv1D(Conv1D):
    """GPT-2's `Conv1D`, whose weight is [I, O], with products in `arithmetic`."""

    arithmetic: Arithmetic

    def forward(self, x: Tensor) -> Tensor:
        if in_reference():
            return super().forward(x)
        y = LowProduct.apply(x, self.weight.t(), self.arithmetic)
        return y + self.bias.to(y.dtype)


def low_precision_products(module: nn.Module, arithmetic: Arithmetic) -> None:
    """Convert `module` (an `nn.Linear` or a `Conv1D`) in place, so that it computes in `arithmetic`."""
    module.__class__ = LowConv1D if isinstance(module, Conv1D) else LowLinear
    module.arithmetic = arithmetic  # type: ignore[assignment]
