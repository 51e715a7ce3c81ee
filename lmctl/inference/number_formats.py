"""Number formats of a finished model: its own, those of a precision, or post-training quantisation.

A precision means the same as in training, without gradients: the model is converted to fp32, `convert` changes its
layers, `products` wraps its forward passes. `quantize` changes linear layers only, so that a bf16 model stays bf16.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmctl.core.errors import ConfigError, LmctlError
from lmctl.precision.base import Precision, Quantization
from lmctl.precision.fp32 import Fp32
from lmctl.precision.linear_layers import LinearLayers

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Numerics:
    """`precision` None: as the model is saved; `quantize` None: no quantisation."""

    precision: Precision | None = None
    quantize: Quantization | None = None

    def __bool__(self) -> bool:
        """Whether anything differs from the saved model."""
        return self.precision is not None or self.quantize is not None

    @property
    def name(self) -> str:
        """The option names: `bf16+int8_weight_only`."""
        chosen = [part for part in (self.precision, self.quantize) if part is not None]
        return "+".join(type(part).__module__.rsplit(".", 1)[-1] for part in chosen)

    def check(self) -> None:
        """ConfigError if its parts conflict; called before any work."""
        precision, quantize = self.precision, self.quantize
        if precision is not None and precision.chooses:
            raise ConfigError("precision=auto chooses when a training run begins", "name one: precision=bf16")
        if precision is None or quantize is None:
            return
        if isinstance(precision, LinearLayers) or precision.storage is not None:
            one, other = Numerics(quantize=quantize).name, Numerics(precision).name
            raise ConfigError(
                f"quantize={one} and precision={other} both say how weights of linear layers are kept or multiplied",
                f"nearest: quantize={one} by itself, or with precision=bf16 for what is not int8",
            )

    def refuse(self, device: torch.device) -> None:
        """ConfigError if `device` does not support it."""
        reason = self.precision.refuse(device) if self.precision is not None else None
        if reason is not None:
            raise ConfigError(f"precision: {reason}")

    def take(self, network: nn.Module, device: torch.device) -> list[str]:
        """Convert a network on the CPU, which will move to `device`, in place; returns remarks. Layers are named as in
        training, so that patterns match the same: the transformers model is `model`."""
        lines = []
        if self.precision is not None:
            lines += self.precision.convert(network.float(), device)
        if self.quantize is not None:
            lines += self.quantize.quantize(network, device)
        return lines

    def products(self, device: torch.device) -> AbstractContextManager[Any]:
        """Context manager in which forward passes compute in these formats."""
        return (self.precision or Fp32()).products(device)

    @property
    def lossy(self) -> bool:
        """Whether logits must differ from those in fp32."""
        return any(part.product or part.storage for part in (self.precision, self.quantize) if part is not None)

    @contextmanager
    def proven(self, model: nn.Module, device: torch.device) -> Iterator[Counter[str]]:
        """`products` for a first pass, which counts the low-precision products by kind. Raises if there are none (the
        low-precision modes of several libraries can silently do nothing)."""
        from lmctl.precision.counting import counting, storage
        from lmctl.train.precision_proof import CountDtypes

        with counting() as products, self.products(device), CountDtypes(products):
            yield products
        for part in (self.precision, self.quantize):
            if part is not None and part.product is not None and not products[part.product]:
                raise LmctlError(f"{self.name}: asked for {part.product} products, but there were none")
            if part is not None and part.storage is not None and not storage(model, part.storage).elements:
                raise LmctlError(f"{self.name}: asked for weights stored as {part.storage}, but there are none")


def in_float(model: nn.Module) -> list[str]:
    """Modules with matrices that stay in float in a partly quantised model, named as in training; [] if all layers are
    alike."""
    from lmctl.precision.linear import LowConv1D, LowLinear
    from lmctl.precision.stored_linear import StoredWeight

    changed = (StoredWeight, LowLinear, LowConv1D)
    if not any(isinstance(module, changed) for module in model.modules()):
        return []
    return [
        f"model.{name}"
        for name, module in model.named_modules()
        if not isinstance(module, changed) and any(p.ndim > 1 for p in module.parameters(recurse=False))
    ]


def dtypes(model: nn.Module) -> str:
    """Dtypes of the saved weights as text: `fp32`, or `bf16 and fp32`."""
    from lmctl.precision.emulation import NAMES

    found = {NAMES.get(p.dtype, str(p.dtype).removeprefix("torch.").replace("float", "fp")) for p in model.parameters()}
    return " and ".join(sorted(found))
