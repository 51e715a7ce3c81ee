"""Rotation of pairs of numbers, compiled: see `lmctl.kernels.plain.rotary`."""

from __future__ import annotations

from torch import Tensor

from lmctl.kernels.backend import in_threads
from lmctl.kernels.compiled.arithmetic import load, numbers, single, store
from lmctl.kernels.compiled.jit import kernel


def rotated(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    """`plain.rotary.rotated`."""
    rows, length, heads, width = x.shape
    reach = sum(stride * (size - 1) for size, stride in zip(x.shape, x.stride(), strict=True)) + 1
    source = numbers(x.as_strided((reach,), (1,)))  # so that its slices are known to be contiguous
    arrays = source, x.stride()[:3], numbers(cos.view(-1, width)), numbers(sin.view(-1, width))
    target, positions = numbers(out.view(-1, width)), rows * length
    in_threads(lambda a, b: _rotate(*arrays, len(cos) > 1, length, heads, target, a, b), positions, x.numel())


@kernel
def _rotate(x, strides, cos, sin, own, length, heads, out, start, end):  # type: ignore[no-untyped-def]
    """The vectors at positions from `start` to `end`, all rows after one another; `own`: rows have angles of their
    own."""
    half = out.shape[1] // 2
    for position in range(start, end):
        row = position // length
        place = position - row * length
        angle = position if own else place
        cos1, cos2 = cos[angle, :half], cos[angle, half:]
        sin1, sin2 = sin[angle, :half], sin[angle, half:]
        for head in range(heads):
            at = row * strides[0] + place * strides[1] + head * strides[2]
            first, second = x[at : at + half], x[at + half : at + half + half]
            to_first, to_second = out[position * heads + head, :half], out[position * heads + head, half:]
            for i in range(half):
                one, other = load(first[i]), load(second[i])
                to_first[i] = store(single(single(one * cos1[i]) - single(other * sin1[i])), first[i])
                to_second[i] = store(single(single(other * cos2[i]) + single(one * sin2[i])), first[i])
