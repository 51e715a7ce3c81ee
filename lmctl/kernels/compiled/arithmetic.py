"""Parts of kernels: float32 and bfloat16 numbers, powers of two, maxima and sums, vectorised by the compiler."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numba.extending import overload
from torch import Tensor

from lmctl.kernels.compiled.counter import S16, word
from lmctl.kernels.plain import arithmetic as plain
from lmctl.kernels.plain.arithmetic import LANES

single, whole = np.float32, np.int32
E0, E1, E2, E3, E4, E5, E6 = (single(coefficient) for coefficient in plain.EXP2)
LEAST, ROUND = single(plain.LEAST), single(plain.ROUND)
NONE, LOWEST = single(0), single(-np.inf)


def numbers(tensor: Tensor) -> Any:
    """A tensor as an array; bfloat16 as words."""
    return tensor.numpy() if tensor.dtype == torch.float32 else tensor.view(torch.uint16).numpy()


def load(number):  # type: ignore[no-untyped-def]
    """A float32, or the word of a bfloat16, as float32."""


def store(number, like):  # type: ignore[no-untyped-def]
    """A float32 as what `like` is; bfloat16 is rounded to nearest, ties to even."""


@overload(load)
def _load(number):  # type: ignore[no-untyped-def]
    if number == numba.float32:
        return lambda number: number
    return lambda number: word(word(number) << S16).view(np.float32)


@overload(store)
def _store(number, like):  # type: ignore[no-untyped-def]
    if like == numba.float32:
        return lambda number, like: number

    def rounded(number, like):  # type: ignore[no-untyped-def]
        bits = single(number).view(np.uint32)
        if number != number:
            return np.uint16(0x7FC0)
        return np.uint16(word(bits + word(0x7FFF) + word(word(bits >> S16) & word(1))) >> S16)

    return rounded


@numba.njit(inline="always")
def exp2(x):  # type: ignore[no-untyped-def]
    """`plain.arithmetic.exp2`."""
    n = single(single(x + ROUND) - ROUND)
    r = single(x - n)
    y = single(r * E0)
    y = single(single(y + E1) * r)
    y = single(single(y + E2) * r)
    y = single(single(y + E3) * r)
    y = single(single(y + E4) * r)
    y = single(single(y + E5) * r)
    y = single(y + E6)
    y = single(y * whole((whole(n) + whole(127)) << whole(23)).view(np.float32))
    return NONE if x < LEAST else y


@numba.njit(inline="always")
def largest_of(value, lanes):  # type: ignore[no-untyped-def]
    """The largest of float32 numbers, LANES at a time."""
    lanes[:] = LOWEST
    for group in range(len(value) // LANES):
        for lane in range(LANES):
            number = value[group * LANES + lane]
            lanes[lane] = number if number > lanes[lane] else lanes[lane]
    for lane in range(16):
        lanes[lane] = lanes[lane] if lanes[lane] > lanes[lane + 16] else lanes[lane + 16]
    for lane in range(8):
        lanes[lane] = lanes[lane] if lanes[lane] > lanes[lane + 8] else lanes[lane + 8]
    for lane in range(4):
        lanes[lane] = lanes[lane] if lanes[lane] > lanes[lane + 4] else lanes[lane + 4]
    return max(max(lanes[0], lanes[1]), max(lanes[2], lanes[3]))


@numba.njit(inline="always")
def fold(lanes):  # type: ignore[no-untyped-def]
    """The sum of 32 lanes, which are lost: the second half is added to the first until one is left."""
    for lane in range(16):  # loops of fixed length are made vectors
        lanes[lane] += lanes[lane + 16]
    for lane in range(8):
        lanes[lane] += lanes[lane + 8]
    for lane in range(4):
        lanes[lane] += lanes[lane + 4]
    return single(single(lanes[0] + lanes[2]) + single(lanes[1] + lanes[3]))


@numba.njit(inline="always")
def lane_sum(value, lanes):  # type: ignore[no-untyped-def]
    """`plain.arithmetic.lane_sum`, for 32 lanes."""
    lanes[:] = NONE
    for group in range(len(value) // LANES):
        for lane in range(LANES):
            lanes[lane] += value[group * LANES + lane]
    return fold(lanes)
