"""The formats in which values are sent, as components of the group's options. Each says how many bytes n values take.

Blocks are of consecutive values: of a tensor's rows where all are sent, of the survivors in their order where few are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


class Quantiser(ABC):
    """A format of values."""

    one_bit: ClassVar[bool] = False
    """Whether nothing but signs is left of single values."""

    @abstractmethod
    def encode(self, values: Tensor) -> Tensor:
        """float32 [R, n] as uint8 [R, b], where b depends on n alone."""

    @abstractmethod
    def decode(self, message: Tensor, n: int) -> Tensor:
        """What is received: float32 [R, n] of uint8 [R, b]."""


@dataclass(frozen=True)
class Fp32(Quantiser):
    """Values as they are."""

    def encode(self, values: Tensor) -> Tensor:
        from lmctl.compression.coding import raw

        return raw(values)

    def decode(self, message: Tensor, n: int) -> Tensor:
        import torch

        from lmctl.compression.coding import read

        return read(message, torch.float32)


@dataclass(frozen=True)
class Bf16(Quantiser):
    """The upper half of an fp32: its range, 8 bits of precision."""

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
    """11 bits of precision, with a power of two per block so that nothing overflows."""

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
    """-127 to 127 times the largest value of a block."""

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
    """One bit, and the mean magnitude of a block."""

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
