"""The rows of a batch: what of them is not padding, and random numbers that belong to a row."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

from lmctl.core.batch import Batch
from lmctl.core.counter_rng import CounterRng


def real_positions(batch: Batch) -> Tensor:
    """bool [R, L]: what is not padding on the side that is read."""
    if (documents := batch.inputs.get("documents")) is not None:
        return documents >= 0
    mask = batch.inputs.get("attention_mask")
    return torch.ones_like(batch.inputs["input_ids"], dtype=torch.bool) if mask is None else mask


def row_generators(batch: Batch, real: Tensor, draws: CounterRng, window: int) -> list[np.random.Generator]:
    """One per row of a batch in the host's memory, by what stands in the row: in whatever micro-batch, and in whatever
    process, it draws the same numbers, and others in every window."""
    rows = (pieces[kept].numpy().tobytes() for pieces, kept in zip(batch.inputs["input_ids"], real, strict=True))
    return [draws.generator(window, zlib.crc32(row)) for row in rows]
