"""NF4 quantisation: blocks of 64 weights with an absmax scale, 4 bits per weight (Dettmers et al. 2023, "QLoRA",
section 3).

It uses the kernels of bitsandbytes, but not its `Linear4bit`: on CPUs with AVX-512 BF16 that module repacks its weight
at the first validation and then trains through a product without gradient, and its state is not all plain tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lmctl.core.bitsandbytes import bitsandbytes
from lmctl.precision.codecs import FloatProducts

bnb = bitsandbytes().functional

BLOCK = 64


@dataclass(frozen=True)
class Nf4Blocks(FloatProducts):
    """Two weights per byte, uint8 [n / 2, 1], and float32 scales [n / 64]: 4.5 bits per weight. Not trainable."""

    format: ClassVar[str] = "nf4"

    def encode(self, weight: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        packed, state = bnb.quantize_4bit(weight.contiguous(), blocksize=BLOCK, quant_type="nf4")
        return {"nf4": packed, "absmax": state.absmax}

    def decode(self, kept: dict[str, Tensor], shape: torch.Size) -> Tensor:
        state = bnb.QuantState(
            absmax=kept["absmax"], shape=shape, dtype=torch.float32, blocksize=BLOCK, quant_type="nf4"
        )
        return bnb.dequantize_4bit(kept["nf4"], state)
