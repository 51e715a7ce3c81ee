"""Low-precision linear layers: three quantised products over a float32 weight, forward and backward.

`low_precision_products` converts an existing layer by changing its class. Parameters, their names, hooks and positions
in the network stay the same, so checkpoints, export and adapters need no special case.

A weight is quantised once per optimiser step, for all micro-batches and all three products. An input is quantised once
for all layers that read it one after the other, as those of query, key and value do. For the backward pass its
quantised form is kept, not its float values.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.optim import Optimizer
from transformers.pytorch_utils import Conv1D

from lmctl.kernels.plain.quantise import QuantisedRows
from lmctl.precision.arithmetic import (
    Arithmetic,
    Operand,
    as_matrix,
    output_dtype,
    weight_gradient,
    without_autocast,
)
from lmctl.precision.counting import in_reference


class QuantisedOnce:
    """The quantised form of one tensor, until that tensor changes, dies or another one is asked for."""

    def __init__(self) -> None:
        self._tensor: weakref.ref[Tensor] | None = None
        self._state: tuple[int, int] | None = None
        """Version and storage of the tensor when it was quantised."""
        self._operand: Operand | None = None

    def of(self, tensor: Tensor, both: bool, arithmetic: Arithmetic) -> Operand:
        """`tensor` [..., C] as a quantised matrix [N, C], with `both` also by column."""
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return _quantised(tensor, both, arithmetic)
        found, state = self._operand, (tensor._version, tensor.untyped_storage()._cdata)
        known = self._tensor is not None and self._tensor() is tensor and self._state == state
        if not known or found is None or (both and found.columns is None):
            found = _quantised(tensor, both, arithmetic)
            self._tensor, self._state, self._operand = weakref.ref(tensor, self._forget), state, found
        return found

    def _forget(self, reference: Any) -> None:
        if reference is self._tensor:
            self._operand = None


@torch.no_grad()
def _quantised(tensor: Tensor, both: bool, arithmetic: Arithmetic) -> Operand:
    return arithmetic.quantise(as_matrix(tensor), both)


class LowProduct(torch.autograd.Function):
    """Autograd function y = x w^T + b for x [..., I], with all three products in `arithmetic`. `weight` and `bias`
    receive gradients only; what is computed with are the quantised `rows` (x as a matrix) and `channels` (w [O, I]).
    `weight` is [O, I], or [I, O] if `transposed`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        rows: Operand,
        channels: Operand,
        arithmetic: Arithmetic,
        transposed: bool,
    ) -> Tensor:
        ctx.save_for_backward(*(rows.columns or (None, None)), *(channels.columns or (None, None)))
        ctx.arithmetic, ctx.transposed, ctx.shape = arithmetic, transposed, x.shape
        ctx.dtypes = (x.dtype, weight.dtype, None if bias is None else bias.dtype)
        dtype = output_dtype(x)
        with without_autocast(x.device):
            y = arithmetic.multiply(rows.rows, channels.rows.t(), bias, dtype)
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        x_values, x_scale, w_values, w_scale = ctx.saved_tensors
        low: Arithmetic = ctx.arithmetic
        g, gx, gw, gb = as_matrix(gradient), None, None, None
        with without_autocast(g.device):
            if ctx.needs_input_grad[2]:
                gb = g.sum(0, dtype=ctx.dtypes[2])
            if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
                quantised = low.quantise_gradient(g)
            if ctx.needs_input_grad[0]:
                weight = QuantisedRows(w_values, w_scale)
                gx = low.multiply(quantised.rows, weight, None, ctx.dtypes[0]).view(ctx.shape)
            if ctx.needs_input_grad[1]:
                x = QuantisedRows(x_values, x_scale)
                gw = weight_gradient(low, quantised, x, ctx.dtypes[1], ctx.transposed)
        return gx, gw, gb, None, None, None, None


class LowLinear(nn.Linear):
    """`nn.Linear` with products in `arithmetic`."""

    arithmetic: Arithmetic
    inputs: QuantisedOnce
    """Shared by all layers of a network."""
    channels: QuantisedOnce

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if in_reference() else low_linear(self, x, transposed=False)


class LowConv1D(Conv1D):
    """GPT-2's `Conv1D`, whose weight is [I, O], with products in `arithmetic`."""

    arithmetic: Arithmetic
    inputs: QuantisedOnce
    channels: QuantisedOnce

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if in_reference() else low_linear(self, x, transposed=True)


def low_linear(layer: LowLinear | LowConv1D, x: Tensor, transposed: bool) -> Tensor:
    """Output [..., O] of a layer for inputs [..., I]. `transposed`: its weight is [I, O]."""
    weight, arithmetic, learns = layer.weight, layer.arithmetic, torch.is_grad_enabled()
    rows = layer.inputs.of(x, learns and weight.requires_grad, arithmetic)
    channels = layer.channels.of(weight, transposed or (learns and x.requires_grad), arithmetic)
    channels = channels.t() if transposed else channels
    y: Tensor = LowProduct.apply(x, weight, layer.bias, rows, channels, arithmetic, transposed)
    return y


def announce_updates(optimizer: Optimizer, learner: nn.Module) -> None:
    """Make every step of `optimizer` change the version of the weights of low-precision layers, which a library that
    writes to their memory (bitsandbytes) does not."""
    weights = [module.weight for module in learner.modules() if isinstance(module, LowLinear | LowConv1D)]
    optimizer.register_step_post_hook(lambda *_: torch.autograd.graph.increment_version(weights))


def low_precision_products(module: nn.Module, arithmetic: Arithmetic, inputs: QuantisedOnce | None = None) -> None:
    """Convert `module` (an `nn.Linear` or a `Conv1D`) in place, so that it computes in `arithmetic`. `inputs`: the same
    object for all layers of a network, which share what they quantise."""
    module.__class__ = LowConv1D if isinstance(module, Conv1D) else LowLinear
    assert isinstance(module, LowLinear | LowConv1D)
    module.arithmetic, module.inputs, module.channels = arithmetic, inputs or QuantisedOnce(), QuantisedOnce()
