"""In what number formats a finished model is kept and computes: its own, those of a precision, int8 after training.

A precision means what it means in training, without gradients: the model is made fp32 first, `convert` changes its
layers, `products` surrounds its passes. `quantize` changes linear layers only, so that a model in bf16 stays one.
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
    """`precision` None: as the model is saved; `quantize` None: weights stay as they are."""

    precision: Precision | None = None
    quantize: Quantization | None = None

    def __bool__(self) -> bool:
        """Whether anything differs from the model as it is."""
        return self.precision is not None or self.quantize is not None

    @property
    def name(self) -> str:
        """The options, as one types them: `bf16+int8_weight_only`."""
        chosen = [part for part in (self.precision, self.quantize) if part is not None]
        return "+".join(type(part).__module__.rsplit(".", 1)[-1] for part in chosen)

    def check(self) -> None:
        """ConfigError if its parts do not go together; asked before any work."""
        precision, quantize = self.precision, self.quantize
        if precision is None or quantize is None:
            return
        if isinstance(precision, LinearLayers) or precision.storage is not None:
            one, other = Numerics(quantize=quantize).name, Numerics(precision).name
            raise ConfigError(
                f"quantize={one} and precision={other} both say how weights of linear layers are kept or multiplied",
                f"nearest: quantize={one} by itself, or with precision=bf16 for what is not int8",
            )

    def refuse(self, device: torch.device) -> None:
        """ConfigError if `device` cannot do it."""
        reason = self.precision.refuse(device) if self.precision is not None else None
        if reason is not None:
            raise ConfigError(f"precision: {reason}")

    def take(self, network: nn.Module, device: torch.device) -> list[str]:
        """Bring a network that is on the CPU, and soon on `device`, into these formats, in place; what is worth saying
        of it. Layers are named as in training, so that patterns mean the same: the transformers model is `model`."""
        lines = []
        if self.precision is not None:
            lines += self.precision.convert(network.float(), device)
        if self.quantize is not None:
            lines += self.quantize.quantize(network, device)
        return lines

    def products(self, device: torch.device) -> AbstractContextManager[Any]:
        """Inside it, passes compute in these formats."""
        return (self.precision or Fp32()).products(device)

    @property
    def lossy(self) -> bool:
        """Whether logits must come out otherwise than in fp32."""
        return any(part.product or part.storage for part in (self.precision, self.quantize) if part is not None)

    @contextmanager
    def proven(self, model: nn.Module, device: torch.device) -> Iterator[Counter[str]]:
        """`products` for a first pass, whose low-precision products it counts by kind. Raises if what was asked for
        did not happen (several libraries' low-precision modes do nothing without a word)."""
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
    """Modules with matrices of their own that stay in float in a model some of whose layers do not, named as in
    training; [] where all layers are alike."""
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
    """The number formats of the weights as they are saved: `fp32`, or `bf16 and fp32`."""
    from lmctl.precision.emulation import NAMES

    found = {NAMES.get(p.dtype, str(p.dtype).removeprefix("torch.").replace("float", "fp")) for p in model.parameters()}
    return " and ".join(sorted(found))
