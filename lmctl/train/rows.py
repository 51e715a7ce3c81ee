"""Padding mask of a batch, and random generators per row."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

from lmctl.core.batch import Batch
from lmctl.core.counter_rng import CounterRng


def real_positions(batch: Batch) -> Tensor:
    """Padding mask bool [R, L] of the input side: True where not padding."""
    if (documents := batch.inputs.get("documents")) is not None:
        return documents >= 0
    mask = batch.inputs.get("attention_mask")
    return torch.ones_like(batch.inputs["input_ids"], dtype=torch.bool) if mask is None else mask


def row_generators(batch: Batch, real: Tensor, draws: CounterRng, window: int) -> list[np.random.Generator]:
    """One random generator per row of a batch in host memory, seeded by the row's content and the window: independent
    of micro-batches and processes."""
    rows = (pieces[kept].numpy().tobytes() for pieces, kept in zip(batch.inputs["input_ids"], real, strict=True))
    return [draws.generator(window, zlib.crc32(row)) for row in rows]
