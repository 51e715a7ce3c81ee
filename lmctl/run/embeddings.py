"""The word embeddings of a network, which an adversary may shift: where it may, and from where it starts."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmctl.core.batch import Batch
from lmctl.core.draws import Draws
from lmctl.core.errors import LmctlError


class Embeddings:
    """The output of one embedding module, where a hook waits for shifts from now on."""

    def __init__(self, module: Any) -> None:
        self.width = int(module.embedding_dim)
        self._waiting: Tensor | None = None
        module.register_forward_hook(self._shift)

    def _shift(self, module: Any, inputs: Any, output: Tensor) -> Tensor | None:
        # A decoder may read with the same module as its encoder, which comes first.
        shift, self._waiting = self._waiting, None
        return None if shift is None else output + shift.to(output.dtype)

    @contextmanager
    def shifted(self, shift: Tensor) -> Iterator[None]:
        """Inside it, the next output has `shift` [R, L, H] added to it."""
        self._waiting = shift
        try:
            yield
            if self._waiting is not None:
                raise LmctlError("adversary: the network did not read through its word embeddings; nothing was shifted")
        finally:
            self._waiting = None


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


def random_start(real: Tensor, generators: list[np.random.Generator], width: int, device: torch.device) -> Tensor:
    """float32 [R, L, width]: even draws from -1 to 1 over the root of their number in the row; 0 where `real` bool
    [R, L] (in the host's memory) is not set. Each row's numbers are drawn on the device, from a seed of its own."""
    start = torch.zeros(*real.shape, width, device=device)
    source = torch.Generator(device)
    for row, generator in enumerate(generators):
        places = real[row].nonzero().squeeze(-1).to(device)
        source.manual_seed(int(generator.integers(1 << 62)))
        numbers = torch.rand(len(places), width, generator=source, device=device) * 2 - 1
        start[row].index_copy_(0, places, numbers / max(1, numbers.numel()) ** 0.5)
    return start
