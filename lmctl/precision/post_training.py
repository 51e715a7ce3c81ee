"""What the options of `quantize` have in common: linear layers of a model that has learnt keep their weights in int8.

Layers, formats and products are those of training (`layer_choice.py`, `stored_linear.py`, `codecs.py`), without
gradients and without updates. Everything else stays in the number format that the model has.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from lmctl.precision.base import Quantization
from lmctl.precision.linear_layers import check_scale

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lmctl.precision.stored_linear import Codec


@dataclass(frozen=True)
class PostTraining(Quantization):
    """`exclude`: names of layers that are left alone, with `*` for anything; None: output heads
    (`lmctl.precision.layer_choice.HEADS`)."""

    scale: str = "float"
    exclude: Optional[list[str]] = None

    def __post_init__(self) -> None:
        check_scale(self.scale)

    @property
    def name(self) -> str:
        """The option, as one types it."""
        return type(self).__module__.rsplit(".", 1)[-1]

    @abstractmethod
    def codec(self, dtype: str) -> Codec:
        """How the weights of a layer whose own format is `dtype` (fp32, bf16, fp16) are kept and multiplied."""

    def remarks(self, device: torch.device) -> list[str]:
        """What the user should know of this device."""
        return []

    def quantize(self, network: nn.Module, device: torch.device) -> list[str]:
        from lmctl.precision.emulation import NAMES
        from lmctl.precision.layer_choice import choose
        from lmctl.precision.stored_linear import store_weight

        choice = choose(network, self.exclude, self.name, "quantize")
        for module in choice.chosen.values():
            dtype = module.weight.dtype
            module.requires_grad_(False)
            store_weight(module, self.codec(NAMES.get(dtype, "fp32")), dtype)  # type: ignore[arg-type]
        return [*choice.say(self.name), *self.remarks(device)]
