"""Random bits that are a function of a key and a position: the specification that all kernels follow.

Position i of a stream with the key (k0, k1) has the 32 bits `second(first(i + k0) ^ k1)`, where `first` and `second`
are bijections of two multiplications each (Wellons 2018, "Prospecting for hash functions": the constants of least
measured bias). So nothing is stored but the key, a backward pass makes the same mask again, and any part of a stream
can be made by any thread.

Half of the bits are enough for a probability or for the noise of a rounding: `halves`. Element e of a tensor belongs to
block e // 1024; elements 0 to 511 of a block have the low halves of 512 positions, 512 to 1023 the high ones, so that
both are made in vectors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 1024
"""Elements that share 512 positions."""
FIRST = (0x21F0AAAD, 0xD35A2D97)
SECOND = (0x7FEB352D, 0x846CA68B)


class Key(NamedTuple):
    """The two 32-bit words of a stream, each from 0 to 2^32 - 1."""

    k0: int
    k1: int


def next_key() -> Key:
    """A key from torch's global generator of the CPU: whatever saves, restores or replays the generator's state saves,
    restores or replays the streams as well."""
    drawn = int(torch.randint(-(1 << 63), (1 << 63) - 1, (), dtype=torch.int64))
    return Key(drawn & 0xFFFFFFFF, (drawn >> 32) & 0xFFFFFFFF)


def bits(count: int, key: Key, start: int = 0) -> Tensor:
    """The bits of positions `start` to `start + count - 1`, as int32 [count]."""
    x = torch.arange(count, dtype=torch.int32).add_(_signed((key.k0 + start) & 0xFFFFFFFF))
    x = _mixed(x, *FIRST, (16, 15, 15)).bitwise_xor_(_signed(key.k1))
    return _mixed(x, *SECOND, (16, 15, 16))


def halves(size: int, key: Key, start: int = 0) -> Tensor:
    """16 random bits for each of `size` elements from `start` on, a multiple of BLOCK: int32 [size], 0 to 65535."""
    blocks = -(-size // BLOCK)
    whole = bits(blocks * BLOCK // 2, key, start // 2).view(blocks, BLOCK // 2)
    return torch.cat([whole & 0xFFFF, (whole >> 16) & 0xFFFF], 1).view(-1)[:size]


def _mixed(x: Tensor, a: int, b: int, shifts: tuple[int, int, int]) -> Tensor:
    """x ^= x >> s; x *= a; x ^= x >> s; x *= b; x ^= x >> s, on unsigned words held as int32, in place."""
    for shift, factor in zip(shifts, (a, b, 1), strict=True):
        x.bitwise_xor_((x >> shift).bitwise_and_((1 << (32 - shift)) - 1))
        if factor != 1:
            x.mul_(_signed(factor))
    return x


def _signed(word: int) -> int:
    """An unsigned 32-bit word as int32."""
    return word - (1 << 32) if word >= 1 << 31 else word
