"""Quantisation formats of the values that are sent: fp32, bf16, fp16, int8 and sign, as nested components.

Block-wise formats have one scale per block of consecutive values: of the tensor, or of the selected values after top-k.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


class Quantiser(ABC):
    """A number format: values to bytes and back."""

    one_bit: ClassVar[bool] = False
    """Whether only the sign of single values is kept."""

    @abstractmethod
    def encode(self, values: Tensor) -> Tensor:
        """Quantise float32 [R, n] to uint8 [R, b]; b depends on n alone."""

    @abstractmethod
    def decode(self, message: Tensor, n: int) -> Tensor:
        """Dequantise uint8 [R, b] to float32 [R, n]."""


@dataclass(frozen=True)
class Fp32(Quantiser):
    """float32, lossless."""

    def encode(self, values: Tensor) -> Tensor:
        from lmctl.compression.coding import raw

        return raw(values)

    def decode(self, message: Tensor, n: int) -> Tensor:
        import torch

        from lmctl.compression.coding import read

        return read(message, torch.float32)


@dataclass(frozen=True)
class Bf16(Quantiser):
    """bfloat16: the range of fp32, 8 bits of precision."""

    def encode(self, values: Tensor) -> Tensor:
        import torch

        from lmctl.compression.coding import raw

        return raw(values.to(torch.bfloat16))

    def decode(self, message: Tensor, n: int) -> Tensor:
        import torch

        from lmctl.compression.coding import read

        return read(message, torch.bfloat16).float()


@dataclass(frozen=True)
class Fp16(Quantiser):
    """float16: 11 bits of precision, with a power-of-two scale per block so that nothing overflows."""

    block: int = 1024

    def __post_init__(self) -> None:
        _at_least_one(self.block)

    def encode(self, values: Tensor) -> Tensor:
        from lmctl.compression.coding import encode_fp16

        return encode_fp16(values, self.block)

    def decode(self, message: Tensor, n: int) -> Tensor:
        from lmctl.compression.coding import decode_fp16

        return decode_fp16(message, n, self.block)


@dataclass(frozen=True)
class Int8(Quantiser):
    """Symmetric int8 with an absmax scale per block."""

    block: int = 512

    def __post_init__(self) -> None:
        _at_least_one(self.block)

    def encode(self, values: Tensor) -> Tensor:
        from lmctl.compression.coding import encode_int8

        return encode_int8(values, self.block)

    def decode(self, message: Tensor, n: int) -> Tensor:
        from lmctl.compression.coding import decode_int8

        return decode_int8(message, n, self.block)


@dataclass(frozen=True)
class Sign(Quantiser):
    """Scaled sign: one bit per value, and the mean magnitude per block."""

    one_bit: ClassVar[bool] = True

    block: int = 1024

    def __post_init__(self) -> None:
        _at_least_one(self.block)

    def encode(self, values: Tensor) -> Tensor:
        from lmctl.compression.coding import encode_sign

        return encode_sign(values, self.block)

    def decode(self, message: Tensor, n: int) -> Tensor:
        from lmctl.compression.coding import decode_sign

        return decode_sign(message, n, self.block)


def _at_least_one(block: int) -> None:
    if block < 1:
        raise ValueError(f"block must be at least 1, got {block}")
