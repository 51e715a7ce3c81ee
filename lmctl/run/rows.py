"""The rows of a batch: what of them is not padding, and random numbers that belong to a row."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

from lmctl.core.batch import Batch
from lmctl.core.draws import Draws


def real_positions(batch: Batch, on_rows: bool) -> Tensor:
    """bool [R, L]: what is not padding on the side that is read. `on_rows`: the batch asks about whole rows."""
    ids, mask = batch.inputs["input_ids"], batch.inputs.get("attention_mask")
    if mask is None:
        return torch.ones_like(ids, dtype=torch.bool)
    if mask.dim() == 2:
        return mask
    # Of documents that share a row, padding is what only itself looks at, and what nothing is asked about.
    real = mask.sum(dim=1) > 1
    if not on_rows:
        for target in batch.targets.values():
            real.view(-1)[target.positions] = True
    return real


def row_generators(batch: Batch, real: Tensor, draws: Draws, window: int) -> list[np.random.Generator]:
    """One per row of a batch in the host's memory, by what stands in the row: in whatever micro-batch, and in whatever
    process, it draws the same numbers, and others in every window."""
    rows = (pieces[kept].numpy().tobytes() for pieces, kept in zip(batch.inputs["input_ids"], real, strict=True))
    return [draws.generator(window, zlib.crc32(row)) for row in rows]
