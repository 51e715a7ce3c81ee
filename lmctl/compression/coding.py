"""Encoding of float32 values as bytes and decoding: int8, fp16, sign bits and positions; uint8 [R, bytes] for [R, n].

The number of bytes depends on n alone, so that the receiver knows the shape of a message. Block formats write first one
float32 scale per block of consecutive values, then the values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FLOAT = 4
"""Bytes of a float32."""
TINY = torch.finfo(torch.float32).tiny


def blocks(values: Tensor, block: int) -> Tensor:
    """[R, n] as [R, blocks, block], padded with zeros."""
    rows, n = values.shape
    return F.pad(values, (0, -n % block)).view(rows, -1, block)


def raw(values: Tensor) -> Tensor:
    """The bytes of a tensor [R, n] of any dtype: uint8 [R, n * size of an element]. A copy, so that a message does not
    change with the tensor that it was made from."""
    return values.clone(memory_format=torch.contiguous_format).view(torch.uint8)


def read(message: Tensor, dtype: torch.dtype) -> Tensor:
    """Bytes as a tensor of `dtype`: the inverse of `raw`."""
    return message.clone(memory_format=torch.contiguous_format).view(dtype)  # a slice may start at an unaligned address


def block_count(n: int, block: int) -> int:
    return -(-n // block)


def encode_int8(values: Tensor, block: int) -> Tensor:
    """Symmetric absmax quantisation per block: q = round(v / s), s = max |v| / 127."""
    blocked = blocks(values, block)
    scale = blocked.abs().amax(dim=-1) / 127
    rounded = (blocked / scale.clamp_min(TINY).unsqueeze(-1)).round_().clamp_(-127, 127).to(torch.int8)
    return torch.cat([raw(scale), raw(rounded.flatten(1)[:, : values.shape[1]])], dim=1)


def decode_int8(message: Tensor, n: int, block: int) -> Tensor:
    """Dequantised values, float32 [R, n]."""
    head = FLOAT * block_count(n, block)
    scale = read(message[:, :head], torch.float32)
    values = blocks(read(message[:, head:], torch.int8).float(), block)
    return (values * scale.unsqueeze(-1)).flatten(1)[:, :n]


def encode_fp16(values: Tensor, block: int) -> Tensor:
    """fp16 with a power-of-two scale per block that brings its largest magnitude below 2^15: nothing overflows, and
    what underflows is 2^-39 of the largest or less. Multiplying by powers of two is exact."""
    blocked = blocks(values, block)
    largest = blocked.abs().amax(dim=-1)
    scale = torch.ldexp(torch.ones_like(largest), (torch.frexp(largest).exponent - 15).clamp(-126, 127))
    half = (blocked / scale.unsqueeze(-1)).to(torch.float16)
    return torch.cat([raw(scale), raw(half.flatten(1)[:, : values.shape[1]])], dim=1)


def decode_fp16(message: Tensor, n: int, block: int) -> Tensor:
    """Dequantised values, float32 [R, n]."""
    head = FLOAT * block_count(n, block)
    scale = read(message[:, :head], torch.float32)
    values = blocks(read(message[:, head:], torch.float16).float(), block)
    return (values * scale.unsqueeze(-1)).flatten(1)[:, :n]


def encode_sign(values: Tensor, block: int) -> Tensor:
    """Scaled sign: one bit per value and the mean of |v| per block (Karimireddy et al. 2019, EF-SGD, section 4). Zero
    counts as positive."""
    rows, n = values.shape
    blocked = blocks(values, block)
    sizes = torch.full((blocked.shape[1],), float(block), device=values.device)
    if n:
        sizes[-1] = n - block * (blocked.shape[1] - 1)
    scale = blocked.abs().sum(dim=-1) / sizes
    bits = F.pad((values >= 0).to(torch.uint8), (0, -n % 8)).view(rows, -1, 8)
    packed = (bits << _places(values.device)).sum(dim=-1, dtype=torch.uint8)
    return torch.cat([raw(scale), packed], dim=1)


def decode_sign(message: Tensor, n: int, block: int) -> Tensor:
    """Scaled signs, float32 [R, n]."""
    head = FLOAT * block_count(n, block)
    scale = read(message[:, :head], torch.float32)
    bits = (message[:, head:].unsqueeze(-1) >> _places(message.device)) & 1
    signs = blocks(bits.flatten(1)[:, :n].float() * 2 - 1, block)
    return (signs * scale.unsqueeze(-1)).flatten(1)[:, :n]


def _places(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)


POSITION_BLOCK = 1 << 16


def encode_positions(positions: Tensor, n: int) -> Tensor:
    """Ascending indices int64 [k] below n as uint8: an int32 count per 65,536 values, then two bytes per index."""
    block = positions // POSITION_BLOCK
    counts = torch.bincount(block, minlength=block_count(n, POSITION_BLOCK)).to(torch.int32)
    local = positions - block * POSITION_BLOCK
    return torch.cat([raw(counts), (local & 255).to(torch.uint8), (local >> 8).to(torch.uint8)])


def decode_positions(message: Tensor, n: int, k: int) -> Tensor:
    """The indices, int64 [k]."""
    number = block_count(n, POSITION_BLOCK)
    head = 4 * number
    counts = read(message[:head], torch.int32).long()
    low, high = message[head : head + k].long(), message[head + k : head + 2 * k].long()
    starts = torch.arange(number, device=message.device) * POSITION_BLOCK
    return torch.repeat_interleave(starts, counts, output_size=k) + low + (high << 8)


def positions_size(n: int, k: int) -> int:
    """Bytes of k encoded indices below n."""
    return 4 * block_count(n, POSITION_BLOCK) + 2 * k
