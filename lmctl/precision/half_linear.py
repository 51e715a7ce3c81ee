"""Linear layers in half precision on CPUs, over float32 weights that are cast once per optimiser step.

torch's autocast casts a weight in every context that multiplies by it, and gradients of weights and biases pass through
half precision twice. Here a layer keeps its weight's half-precision copy until the weight changes, and all three
products read it. Layers are converted by changing their class, so parameters, their names and hooks stay the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.optim import Optimizer
from transformers.pytorch_utils import Conv1D

from lmctl.precision.arithmetic import as_matrix, without_autocast
from lmctl.precision.counting import count
from lmctl.precision.emulation import NAMES, native


class HalfCopy:
    """The half-precision copy of one weight."""

    def __init__(self) -> None:
        self.kept = True
        """Whether it is kept between uses; not where the weight itself is not (FSDP)."""
        self.values: Tensor | None = None
        self.cast_from: tuple[int, int] | None = None
        """Version and storage of the weight that `values` was cast from; None: it must be cast again."""

    def __deepcopy__(self, memo: dict[int, Any]) -> HalfCopy:
        return HalfCopy()

    def of(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The copy of `weight`, cast again if the weight has changed."""
        if not self.kept:
            return weight.detach().to(dtype)
        now = (weight._version, weight.untyped_storage()._cdata)
        if self.values is None or self.values.dtype != dtype:
            self.values = weight.detach().to(dtype)
        elif self.cast_from != now:
            self.values.copy_(weight.detach())  # in place: its pages need not be made again
        self.cast_from = now
        return self.values


class HalfProduct(torch.autograd.Function):
    """Autograd function y = x w^T + b in half precision for x [..., I], sums in float32; gradients of weight and bias
    are float32. The weight is [O, I], or [I, O] if `transposed`; `half` is its half-precision copy, which the backward
    pass casts again if it is not `kept`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, half: Tensor, transposed: bool, kept: bool
    ) -> Tensor:
        rows = as_matrix(x).to(half.dtype)
        ctx.save_for_backward(rows, half if kept else weight)
        ctx.transposed, ctx.shape, ctx.dtype = transposed, x.shape, x.dtype
        y = _product(rows, half if transposed else half.t(), None if bias is None else bias.to(half.dtype))
        return y.to(half.dtype).view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        half = weight.to(rows.dtype)
        g, gx, gw, gb = as_matrix(gradient), None, None, None
        if ctx.needs_input_grad[0]:
            gx = _product(g, half.t() if ctx.transposed else half).view(ctx.shape).to(ctx.dtype)
        if ctx.needs_input_grad[1]:
            gw = (_product(rows.t(), g) if ctx.transposed else _product(g.t(), rows)).float()
        if ctx.needs_input_grad[2]:
            gb = g.sum(0).float()
        return gx, gw, gb, None, None, None


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a b + bias in half precision; on a CPU without such products a float32 product of the same values, not rounded
    yet."""
    if native(a.dtype):
        return torch.mm(a, b) if bias is None else torch.addmm(bias, a, b)
    count(NAMES[a.dtype])
    with without_autocast(a.device):
        return torch.mm(a.float(), b.float()) if bias is None else torch.addmm(bias.float(), a.float(), b.float())


class HalfLinear(nn.Linear):
    """`nn.Linear` that computes in half precision under autocast, and as ever elsewhere."""

    half_weight: HalfCopy

    def forward(self, x: Tensor) -> Tensor:
        if _elsewhere(x):
            return super().forward(x)
        half = self.half_weight.of(self.weight, torch.get_autocast_dtype("cpu"))
        return HalfProduct.apply(x, self.weight, self.bias, half, False, self.half_weight.kept)


class HalfConv1D(Conv1D):
    """GPT-2's `Conv1D`, whose weight is [I, O], likewise."""

    half_weight: HalfCopy

    def forward(self, x: Tensor) -> Tensor:
        if _elsewhere(x):
            return super().forward(x)
        half = self.half_weight.of(self.weight, torch.get_autocast_dtype("cpu"))
        return HalfProduct.apply(x, self.weight, self.bias, half, True, self.half_weight.kept)


def _elsewhere(x: Tensor) -> bool:
    """Whether products are not ours: in float32, or compiled, where nothing can be kept."""
    return not torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()


def keep_half_copies(layers: Iterable[nn.Module]) -> None:
    """Convert `layers` (each an `nn.Linear` or a `Conv1D`) in place."""
    for module in layers:
        module.__class__ = HalfConv1D if isinstance(module, Conv1D) else HalfLinear
        module.half_weight = HalfCopy()  # type: ignore[assignment]


def half_copies(network: nn.Module) -> list[HalfCopy]:
    """The copies that the layers of `network` keep."""
    return [module.half_weight for module in network.modules() if isinstance(module, HalfLinear | HalfConv1D)]


def cast_after_steps(optimizer: Optimizer, network: nn.Module) -> None:
    """Have the weights of `network` cast again after each step of `optimizer`: torch's fused optimisers, and those of
    other libraries, change a weight without a new version of it."""
    copies = half_copies(network)

    def stepped(*_: Any) -> None:
        for one in copies:
            one.cast_from = None

    optimizer.register_step_post_hook(stepped)
