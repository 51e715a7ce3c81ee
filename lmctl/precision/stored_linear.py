"""Quantised weight storage: linear layers whose weight exists in a low precision only.

Buffers hold the weight (for example `weight_int8` and `weight_scale`). The Parameter `weight` keeps its shape, its name
and its gradient, so that gradient clipping and DDP work as usual, but has no memory (as parameters of FSDP between
uses). Products are computed from the buffers; at most one layer at a time has a float weight.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D

from lmctl.core.model_copies import InOwnForm
from lmctl.precision.arithmetic import as_matrix
from lmctl.precision.codecs import Forward, Saved
from lmctl.precision.counting import Kept, in_reference


class Codec(Protocol):
    """Storage format of a weight [O, I], with its forward and backward products."""

    format: ClassVar[str]

    def encode(self, weight: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        """Quantise float32 [O, I] to tensors by suffix; with `noise` (int16 [O, I]) rounded stochastically."""
        ...

    def decode(self, kept: dict[str, Tensor], shape: torch.Size) -> Tensor:
        """Dequantise to float32 [O, I]."""
        ...

    def forward(self, x: Tensor, kept: dict[str, Tensor], shape: torch.Size, learns: bool) -> Forward:
        """Output [..., O] for inputs [..., I], and, if the weight `learns`, what its gradient needs of them."""
        ...

    def backward(
        self, gradient: Tensor, saved: Saved, kept: dict[str, Tensor], shape: torch.Size, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of inputs [N, I] and weight [O, I], as far as `wanted`, from the output gradient [N, O]."""
        ...


class StoredProduct(torch.autograd.Function):
    """Autograd function y = x w^T for the stored weight [O, I] of `layer`; its parameter only receives the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, layer: StoredWeight, learns: bool, *kept: Tensor) -> Tensor:
        named = dict(zip(layer.suffixes, kept, strict=True))
        output, saved = layer.codec.forward(x, named, layer.shape, learns)
        ctx.save_for_backward(*saved, *kept)
        ctx.layer, ctx.dtype, ctx.x_shape, ctx.x_dtype = layer, weight.dtype, x.shape, x.dtype
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        layer: StoredWeight = ctx.layer
        found = ctx.saved_tensors  # read once: gradient checkpointing refuses a second time
        cut = len(found) - len(layer.suffixes)
        saved, tensors = found[:cut], found[cut:]
        kept = dict(zip(layer.suffixes, tensors, strict=True))
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1])
        gx, gw = layer.codec.backward(as_matrix(gradient), saved, kept, layer.shape, wanted)
        gx = None if gx is None else gx.view(ctx.x_shape).to(ctx.x_dtype)
        gw = None if gw is None else layer.oriented(gw).contiguous().to(ctx.dtype)
        return (gx, gw, None, None, *(None for _ in tensors))


class StoredWeight(InOwnForm, nn.Module):
    """Common part of `StoredLinear` and `StoredConv1D`. `kept`: the quantisation error at conversion."""

    weight: Any
    bias: Any
    codec: Codec
    suffixes: list[str]
    kept: Kept

    @property
    def shape(self) -> torch.Size:
        """[O, I]. A parameter without memory has a shape but cannot be transposed."""
        return self.weight.shape

    def oriented(self, weight: Tensor) -> Tensor:
        """Transpose between this class's weight layout and [O, I], both ways."""
        return weight

    def tensors(self) -> dict[str, Tensor]:
        """The buffers of the weight, by suffix."""
        return {suffix: getattr(self, f"weight_{suffix}") for suffix in self.suffixes}

    def read(self) -> Tensor:
        """The dequantised weight, float32, in the shape of the parameter."""
        return self.oriented(self.codec.decode(self.tensors(), self.shape)).contiguous()

    def write(self, values: Tensor, noise: Tensor | None) -> None:
        """Quantise and store `values`, float32 in the shape of the parameter; `noise` int16 of the same shape."""
        encoded = self.codec.encode(self.oriented(values), None if noise is None else self.oriented(noise))
        for suffix, tensor in self.tensors().items():
            tensor.copy_(encoded[suffix])

    def forward(self, x: Tensor) -> Tensor:
        if in_reference():
            return nn.functional.linear(x, self.oriented(self.read()), self.bias)
        learns = torch.is_grad_enabled() and self.weight.requires_grad
        y = StoredProduct.apply(x, self.weight, self, learns, *self.tensors().values())
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def plain(self) -> nn.Module:
        """An uninitialised layer of the original class."""
        raise NotImplementedError

    def restored(self) -> nn.Module:
        """A copy with a float32 weight, of the original class."""
        with torch.device("meta"):  # so that initialisation draws no random numbers
            layer = self.plain()
        layer = layer.to_empty(device=self.tensors()[self.suffixes[0]].device)
        with torch.no_grad():
            layer.weight.copy_(self.read())  # type: ignore[operator]
            if self.bias is not None:
                layer.bias.copy_(self.bias)  # type: ignore[operator]
        return layer.requires_grad_(self.weight.requires_grad).train(self.training)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """For `.to(device)`: the parameter has no memory to move."""
        weight = self._parameters["weight"]
        self._parameters["weight"] = None
        super()._apply(fn, recurse)
        device = self.tensors()[self.suffixes[0]].device
        if weight is not None and device != weight.device:
            weight = nn.Parameter(without_memory(weight.shape, weight.dtype, device), weight.requires_grad)
        self._parameters["weight"] = weight
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        del destination[f"{prefix}weight"]

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        missing = rest[2]
        if f"{prefix}weight" in missing:
            missing.remove(f"{prefix}weight")


class StoredLinear(StoredWeight, nn.Linear):
    """`nn.Linear` with a stored weight."""

    def plain(self) -> nn.Module:
        return nn.Linear(self.in_features, self.out_features, self.bias is not None)


class StoredConv1D(StoredWeight, Conv1D):
    """GPT-2's `Conv1D`, whose weight is [I, O], with a stored weight."""

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self.nf, self.nx))  # type: ignore[arg-type]

    def oriented(self, weight: Tensor) -> Tensor:
        return weight.t()

    def plain(self) -> nn.Module:
        return Conv1D(self.nf, self.nx)


def store_weight(module: nn.Module, codec: Codec, gradient: torch.dtype = torch.float32) -> None:
    """Convert `module` (an `nn.Linear` or a `Conv1D`) in place: its weight is stored by `codec`, its gradient has dtype
    `gradient`."""
    module.__class__ = StoredConv1D if isinstance(module, Conv1D) else StoredLinear
    assert isinstance(module, StoredWeight)
    before = module.oriented(module.weight.detach().float())
    encoded = codec.encode(before)
    module.codec, module.suffixes = codec, list(encoded)
    for suffix, tensor in encoded.items():
        module.register_buffer(f"weight_{suffix}", tensor.contiguous())
    module.kept = Kept.of(codec.format, before, codec.decode(module.tensors(), before.shape))
    module.weight.data = without_memory(module.weight.shape, gradient, module.weight.device)


def without_memory(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor that has a shape but no memory."""
    tensor = torch.empty(shape, dtype=dtype, device=device)
    tensor.untyped_storage().resize_(0)
    return tensor


class LayerStore:
    """Access to the weight of a stored layer, for the optimiser."""

    def __init__(self, layer: StoredWeight) -> None:
        self.layer = layer

    @property
    def parameter(self) -> nn.Parameter:
        return self.layer.weight

    def read(self) -> Tensor:
        return self.layer.read()

    def write(self, values: Tensor, noise: Tensor) -> None:
        self.layer.write(values, noise)

    def state(self) -> None:
        """None: the network's state has everything."""
