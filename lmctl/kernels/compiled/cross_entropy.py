"""Cross-entropy of logits against labels and its gradient, compiled: see `lmctl.kernels.plain.cross_entropy`."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from lmctl.kernels.backend import in_threads
from lmctl.kernels.compiled.arithmetic import LOWEST, NONE, exp2, fold, load, numbers, single, store
from lmctl.kernels.compiled.jit import kernel
from lmctl.kernels.plain import cross_entropy as plain
from lmctl.kernels.plain.arithmetic import LANES

LOG2_E = single(plain.LOG2_E)


def statistics(logits: Tensor, stats: Tensor, sums: bool) -> None:
    """`plain.cross_entropy.statistics`."""
    arrays = numbers(logits), stats.numpy()
    in_threads(lambda start, end: _statistics(*arrays, sums, start, end), len(logits), logits.numel())


def gradient(logits: Tensor, labels: Tensor, stats: Tensor, factors: Tensor, result: Tensor) -> None:
    """`plain.cross_entropy.gradient`."""
    arrays = numbers(logits), labels.numpy(), stats.numpy(), factors.numpy(), numbers(result)
    in_threads(lambda start, end: _gradient(*arrays, start, end), len(logits), logits.numel())


@kernel
def _statistics(logits, stats, sums, start, end):  # type: ignore[no-untyped-def]
    width = logits.shape[1]
    whole = width // LANES * LANES
    lanes = np.empty(LANES, np.float32)
    for r in range(start, end):
        row = logits[r]
        lanes[:] = LOWEST
        for first in range(0, whole, LANES):
            for lane in range(LANES):
                number = load(row[first + lane])
                lanes[lane] = number if number > lanes[lane] else lanes[lane]
        largest = LOWEST
        for lane in range(LANES):
            largest = max(largest, lanes[lane])
        for k in range(whole, width):
            largest = max(largest, load(row[k]))
        largest = single(largest * LOG2_E)
        lanes[:] = NONE
        for first in range(0, whole, LANES):
            for lane in range(LANES):
                lanes[lane] += exp2(single(single(load(row[first + lane]) * LOG2_E) - largest))
        for k in range(whole, width):
            lanes[k - whole] += exp2(single(single(load(row[k]) * LOG2_E) - largest))
        stats[0, r], stats[1, r] = largest, fold(lanes)
        if sums:
            lanes[:] = NONE
            for first in range(0, whole, LANES):
                for lane in range(LANES):
                    lanes[lane] += load(row[first + lane])
            for k in range(whole, width):
                lanes[k - whole] += load(row[k])
            stats[2, r] = fold(lanes)


@kernel
def _gradient(logits, labels, stats, factors, result, start, end):  # type: ignore[no-untyped-def]
    for r in range(start, end):
        row, out, label, largest = logits[r], result[r], labels[r], stats[0, r]
        power, every, one = factors[0, r], factors[1, r], factors[2, r]
        for k in range(len(row)):
            value = single(exp2(single(single(load(row[k]) * LOG2_E) - largest)) * power)
            out[k] = store(single(value - every), out[k])
        value = single(exp2(single(single(load(row[label]) * LOG2_E) - largest)) * power)
        out[label] = store(single(single(value - every) - one), out[label])
