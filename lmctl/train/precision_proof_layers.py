"""Precision proof per layer: products, gradients and an update of every linear layer, compared with float32.

One forward and backward pass in float32 gives every linear layer its input and output gradient. With these each layer
computes its three products (output, input gradient, weight gradient) in the run's precision, and one step of the run's
optimiser. Both are compared with plain float32 matrices. So a fault is found in its layer, even if it hardly changes
the logits of an untrained network.

Noise and faults are told apart by linear regression. Rounding, to nearest or stochastic, is noise: the slope stays 1,
and the noise level is that of the format. A product that is negated, scaled or missing, or an update that is not
written, has another slope.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lmctl.core.batch import Batch
from lmctl.core.shards import is_sharded, whole
from lmctl.precision.layer_choice import KINDS
from lmctl.precision.stored_linear import StoredWeight
from lmctl.train.learner import Learner

STEP = 0.05
"""Size of the test update relative to the weight, whatever the run's learning rate: far above one step of any grid, so
that rounding noise is small."""


@dataclass(frozen=True)
class Finding:
    """Comparison of a low-precision result with float32."""

    layer: str
    what: str
    """"output", "input gradient", "weight gradient" or "update"."""
    slope: float
    """Least-squares slope of the low-precision result on float32: 1 except for noise."""
    decibel: float
    """Signal-to-noise ratio."""

    @classmethod
    def of(cls, layer: str, what: str, low: Tensor, right: Tensor) -> Finding | None:
        """None if the float32 result is zero everywhere."""
        low, right = low.detach().float().reshape(-1), right.detach().float().reshape(-1)
        signal, noise = float(right.norm()), float((low - right).norm())
        if signal == 0:
            return None
        decibel = (
            20 * math.log10(signal / noise) if noise and math.isfinite(noise) else -math.inf if noise else math.inf
        )
        return cls(layer, what, float((low / signal) @ (right / signal)), decibel)


@dataclass(frozen=True)
class Seen:
    """Input and output gradient of one layer."""

    name: str
    layer: Any
    x: Tensor
    """Input [..., I]."""
    gradient: Tensor | None
    """Output gradient [..., O]; None if neither the layer nor anything below it is trained."""


def findings(learner: Learner, batch: Batch, optim: Any, seed: int) -> Iterator[Finding]:
    """Findings for every linear layer that `batch` passes through. Weights and gradients are restored, random
    generators are not. `optim`: the run's optimiser settings, `seed`: the run's. Updates are tested for every weight in
    low-precision storage, and for one of the others, which are all alike."""
    plain = False
    for one in _passes(learner, batch):
        seen = replace(one, layer=_gathered(one.layer))
        yield from _products(learner, seen)
        if seen.gradient is None or not seen.layer.weight.requires_grad or (plain and not _stored(seen.layer)):
            continue
        plain = plain or not _stored(seen.layer)
        yield from _update(learner, seen, optim, seed)


def _passes(learner: Learner, batch: Batch) -> list[Seen]:
    """One forward and backward pass in float32."""
    inputs: dict[str, tuple[Any, Tensor]] = {}
    outputs: dict[str, Tensor] = {}
    hooks = []

    def watch(name: str) -> Any:
        def hook(layer: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
            if name not in inputs:  # a layer that is called several times is recorded once
                inputs[name] = (layer, args[0].detach())
                if output.requires_grad:
                    outputs[name] = output

        return hook

    for name, module in learner.network.named_modules():
        if isinstance(module, KINDS):
            hooks.append(module.register_forward_hook(watch(name)))
    # Rows without carried state need no track; and cuDNN's recurrent layers have a backward pass in training mode only.
    batch = batch.by_itself()
    kernels = torch.backends.cudnn.flags(enabled=False)
    try:
        with torch.enable_grad(), learner.precision.reference(learner.device), kernels:
            terms = learner.task_losses(batch)
            counts = batch.counts()
            loss = torch.stack([value.float() / max(1, counts[term]) for term, value in terms.items()]).sum()
            found = torch.autograd.grad(loss, list(outputs.values()), allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    gradients = dict(zip(outputs, found, strict=True))
    return [Seen(name, layer, x, gradients.get(name)) for name, (layer, x) in inputs.items()]


def _gathered(layer: nn.Module) -> nn.Module:
    """The layer with whole weights: itself, or a copy where each process has a shard of them."""
    if not any(map(is_sharded, layer.parameters())):
        return layer
    gathered = copy.copy(layer)
    gathered._parameters = {
        name: None if p is None else nn.Parameter(whole(p), p.requires_grad) for name, p in layer._parameters.items()
    }
    return gathered


def _products(learner: Learner, seen: Seen) -> Iterator[Finding]:
    """The three products of a layer."""
    layer, x = seen.layer, seen.x.clone().requires_grad_()
    with torch.enable_grad(), learner.precision.products(learner.device):
        y = layer(x)
    with learner.precision.reference(learner.device):
        weight, rows = _weight(layer), _rows(seen.x)
        output = y.float() if layer.bias is None else y.float() - layer.bias.float()
        found = [Finding.of(seen.name, "output", output, rows @ weight.t())]
        if seen.gradient is not None:
            gradient = _unit(seen.gradient)
            learns = [layer.weight] if layer.weight.requires_grad else []
            gx, *gw = torch.autograd.grad(y, [x, *learns], gradient.to(y.dtype))
            found.append(Finding.of(seen.name, "input gradient", gx, _rows(gradient) @ weight))
            right = _rows(gradient).t() @ rows
            found += [Finding.of(seen.name, "weight gradient", _as(layer, low), right) for low in gw]
    yield from (one for one in found if one is not None)


def _update(learner: Learner, seen: Seen, optim: Any, seed: int) -> Iterator[Finding]:
    """One optimiser step on this layer's weight, and the same in float32, with the same gradient as the layer has it:
    its rounding is checked above, and an optimiser need not be continuous (Muon amplifies values near zero)."""
    layer, device = seen.layer, learner.device
    assert seen.gradient is not None
    before = _weight(layer).clone()
    gradient = _as(layer, _rows(_unit(seen.gradient)).t() @ _rows(seen.x)).to(layer.weight.dtype)
    plain = nn.Linear(before.shape[1], before.shape[0], bias=False, device=device)
    plain.weight.data.copy_(before)
    _step(optim.optimiser(LayerAsLearner(plain), device), plain.weight, _as(layer, gradient).float(), 1.0)
    right = plain.weight.detach() - before
    size, weight = float(right.norm()), float(before.norm())
    if size == 0 and gradient.any():  # the optimiser has no effect even in float32
        yield Finding(seen.name, "update", 0.0, 0.0)
    if size == 0 or weight == 0:
        return
    rate = STEP * weight / size
    with _as_it_was(layer):
        optimizer = learner.precision.optimiser(optim, LayerAsLearner(layer), device, seed)
        _step(optimizer, layer.weight, gradient, rate)
        moved = _weight(layer) - before
    found = Finding.of(seen.name, "update", moved, right * rate)
    yield from () if found is None else (found,)


class LayerAsLearner(nn.Module):
    """A single layer as a network, for an optimiser."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def layers(self) -> list[list[nn.Parameter]]:
        return [list(self.layer.parameters())]

    def stacks(self) -> dict[str, list[nn.Module]]:
        return {"layers": [self.layer]}


@contextmanager
def _as_it_was(layer: Any) -> Iterator[None]:
    """Context that restores the layer bit by bit."""
    tensors = [*layer.buffers(), *(p for p in layer.parameters() if p.untyped_storage().size())]
    kept, gradient = [tensor.detach().clone() for tensor in tensors], layer.weight.grad
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                tensor.copy_(value)
        layer.weight.grad = gradient


def _step(optimizer: Any, weight: Any, gradient: Tensor, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    weight.grad = gradient.contiguous()
    optimizer.step()


def _weight(layer: Any) -> Tensor:
    """The dequantised weight of a layer, float32 [O, I]."""
    return _as(layer, layer.read() if isinstance(layer, StoredWeight) else layer.weight.detach().float())


def _stored(layer: Any) -> bool:
    """Whether the weight is stored in another format than float32."""
    return isinstance(layer, StoredWeight) or layer.weight.dtype != torch.float32


def _as(layer: Any, weight: Tensor) -> Tensor:
    """Transpose between [O, I] and the layer's layout, both ways: GPT-2's `Conv1D` has [I, O]."""
    return weight if isinstance(layer, nn.Linear) else weight.t()


def _rows(x: Tensor) -> Tensor:
    return x.detach().float().reshape(-1, x.shape[-1])


def _unit(gradient: Tensor) -> Tensor:
    """Scale by a power of two so that the largest value is about 1, like a loss scale: products are linear in it, and
    fp16 has no numbers below 6e-8."""
    largest = float(gradient.abs().max())
    return gradient.float() * 2.0 ** -torch.frexp(torch.tensor(largest)).exponent.item() if largest else gradient
