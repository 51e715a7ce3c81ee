"""Post-training quantisation to int8, common to all options of `quantize`.

Layer selection, formats and products are those of training (`layer_choice.py`, `stored_linear.py`, `codecs.py`),
without gradients and updates. All other layers keep the model's dtype.
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
    """`exclude`: patterns (`*`) of layer names that are not quantised; None: output heads
    (`lmctl.precision.layer_choice.HEADS`)."""

    scale: str = "float"
    exclude: Optional[list[str]] = None

    def __post_init__(self) -> None:
        check_scale(self.scale)

    @property
    def name(self) -> str:
        """Name of the option in the config."""
        return type(self).__module__.rsplit(".", 1)[-1]

    @abstractmethod
    def codec(self, dtype: str) -> Codec:
        """Storage format and products for a layer whose own dtype is `dtype` (fp32, bf16, fp16)."""

    def remarks(self, device: torch.device) -> list[str]:
        """Warnings about this device."""
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
