"""Counter-based random bits, compiled: see `lmctl.kernels.counter`."""

from __future__ import annotations

import numba
import numpy as np

from lmctl.kernels.counter import BLOCK, FIRST, SECOND

word = np.uint32
A, B = word(FIRST[0]), word(FIRST[1])
C, D = word(SECOND[0]), word(SECOND[1])
S15, S16 = word(15), word(16)
LOW = word(0xFFFF)
HALF = BLOCK // 2


@numba.njit(inline="always")
def bits(position, k0, k1):  # type: ignore[no-untyped-def]
    """The 32 bits of one position. Every result is cut back to 32 bits, because numba widens them."""
    x = word(position + k0)
    x = word(x ^ (x >> S16))
    x = word(x * A)
    x = word(x ^ (x >> S15))
    x = word(x * B)
    x = word(x ^ (x >> S15))
    x = word(x ^ k1)
    x = word(x ^ (x >> S16))
    x = word(x * C)
    x = word(x ^ (x >> S15))
    x = word(x * D)
    return word(x ^ (x >> S16))


@numba.njit(inline="always")
def half_of(element, k0, k1):  # type: ignore[no-untyped-def]
    """The 16 bits of one element: for those of a block that is not full."""
    inside = element % BLOCK
    drawn = bits(word(element // BLOCK * HALF + inside % HALF), k0, k1)
    return word(drawn & LOW) if inside < HALF else word(drawn >> S16)
