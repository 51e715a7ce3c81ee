"""Dropout from a counter, compiled: see `lmctl.kernels.dropout`."""

from __future__ import annotations

from functools import partial

import numba
import numpy as np
import torch
from torch import Tensor

from lmctl.kernels.backend import in_threads
from lmctl.kernels.compiled.counter import LOW, S16, bits, half_of, word
from lmctl.kernels.compiled.jit import kernel
from lmctl.kernels.counter import BLOCK, Key

HALF = BLOCK // 2
ONE, ROUND, NOT_A_NUMBER = word(1), word(0x7FFF), word(0x7FC0)


def masked(x: Tensor, out: Tensor, key: Key, threshold: int, scale: float) -> None:
    """`plain.dropout.masked`."""
    if x.dtype == torch.float16:  # which numba does not know
        whole = x.float()
        masked(whole, whole, key, threshold, scale)
        out.copy_(whole)
        return
    single = x.dtype == torch.float32
    source, target = (t.view(-1).numpy() if single else t.view(-1).view(torch.uint16).numpy() for t in (x, out))
    run = partial(_float32 if single else _bfloat16, source, target)
    words = (word(key.k0), word(key.k1), word(threshold), np.float32(scale))
    in_threads(lambda start, end: run(*words, start, end), x.numel(), x.numel(), BLOCK)


@kernel
def _float32(x, out, k0, k1, threshold, scale, start, end):  # type: ignore[no-untyped-def]
    none = np.float32(0)
    for first in range(start, end, BLOCK):
        position = word(first // 2)
        if first + BLOCK <= end:  # slices tell LLVM that no index is negative: then it makes vectors of the loop
            low, high = x[first : first + HALF], x[first + HALF : first + BLOCK]
            to_low, to_high = out[first : first + HALF], out[first + HALF : first + BLOCK]
            for i in range(HALF):
                drawn = bits(word(position + word(i)), k0, k1)
                to_low[i] = low[i] * (none if word(drawn & LOW) < threshold else scale)
                to_high[i] = high[i] * (none if word(drawn >> S16) < threshold else scale)
        else:
            for e in range(first, end):
                half = half_of(e, k0, k1)
                out[e] = x[e] * (none if half < threshold else scale)


@kernel
def _bfloat16(x, out, k0, k1, threshold, scale, start, end):  # type: ignore[no-untyped-def]
    """On the words of bfloat16 numbers, whose products are rounded to nearest even as torch rounds."""
    none = np.float32(0)
    for first in range(start, end, BLOCK):
        position = word(first // 2)
        if first + BLOCK <= end:
            low, high = x[first : first + HALF], x[first + HALF : first + BLOCK]
            to_low, to_high = out[first : first + HALF], out[first + HALF : first + BLOCK]
            for i in range(HALF):
                drawn = bits(word(position + word(i)), k0, k1)
                to_low[i] = _times(low[i], none if word(drawn & LOW) < threshold else scale)
                to_high[i] = _times(high[i], none if word(drawn >> S16) < threshold else scale)
        else:
            for e in range(first, end):
                half = half_of(e, k0, k1)
                out[e] = _times(x[e], none if half < threshold else scale)


@numba.njit(inline="always")
def _times(x, factor):  # type: ignore[no-untyped-def]
    """The bfloat16 word of the number with the word `x` times the float32 `factor`."""
    product = np.uint32(word(x) << S16).view(np.float32) * factor
    wide = np.float32(product).view(np.uint32)  # numba wants the type to be written out
    rounded = word(word(wide + ROUND + (word(wide >> S16) & ONE)) >> S16)
    return np.uint16(rounded if product == product else NOT_A_NUMBER)
