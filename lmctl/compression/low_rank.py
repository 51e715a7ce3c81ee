"""PowerSGD (Vogels et al. 2019, algorithms 1 and 2): a gradient matrix M [n, m] as P Q^T, with P [n, r] and Q [m, r].

One step of subspace iteration, from the Q of the step before:

    P = mean of M Q,  orthonormalised        one message, all matrices together
    Q = mean of M^T P                        another
    M is taken to be P Q^T

Both rounds are linear in M, so the result is the same as if the mean of all workers' gradients had been compressed.
Every worker remembers what its own share P (M^T P)^T leaves of its M.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lmctl.compression.base import Wire
from lmctl.compression.layout import Part, matrix_shape
from lmctl.compression.memory import Memory


class LowRank:
    """PowerSGD at work. Lists of vectors have an entry for each of this process's workers."""

    def __init__(self, parts: list[Part], wire: Wire, rank: int, warm_start: bool, memories: list[Memory]) -> None:
        self.parts, self.wire, self.warm_start, self.memories = parts, wire, warm_start, memories
        self.shapes = [matrix_shape(part.shape) for part in parts]
        self.ranks = [min(rank, *shape) for shape in self.shapes]
        self.device = parts[0].parameter.device
        self.right = self._fresh(0)
        """Q of every matrix, as the last step left it."""

    def mean(self, gradients: list[Tensor], fine: Tensor, step: int) -> Tensor:
        """As `Pruned.mean`."""
        values = [memory.add(gradient) for memory, gradient in zip(self.memories, gradients, strict=True)]
        start = self.right if self.warm_start else self._fresh(step)
        right = [orthonormal(q) for q in start]
        left = self._agree([[m @ q for m, q in zip(self._matrices(v), right, strict=True)] for v in values])
        left = [orthonormal(torch.where(fine, p, 0.0)) for p in left]
        own = [[m.T @ p for m, p in zip(self._matrices(v), left, strict=True)] for v in values]
        right = self._agree(own)
        for memory, v, mine in zip(self.memories, values, own, strict=True):
            memory.sent(v, slice(None), self._product(left, mine))
            memory.keep(v, fine)
        for kept, q in zip(self.right, right, strict=True):
            torch.where(fine, q, kept, out=kept)
        return self._product(left, right)

    def _agree(self, factors: list[list[Tensor]]) -> list[Tensor]:
        """The mean over all workers of each of their factors, in one message."""
        flat = self.wire.total([torch.cat([f.reshape(-1) for f in mine]) for mine in factors]) / self.wire.world
        parts = flat.split([f.numel() for f in factors[0]])
        return [part.view_as(f) for part, f in zip(parts, factors[0], strict=True)]

    def _matrices(self, vector: Tensor) -> list[Tensor]:
        return [part.of(vector).view(shape) for part, shape in zip(self.parts, self.shapes, strict=True)]

    def _product(self, left: list[Tensor], right: list[Tensor]) -> Tensor:
        """P Q^T of every matrix, end to end: float32 [n]."""
        return torch.cat([(p @ q.T).reshape(-1) for p, q in zip(left, right, strict=True)])

    def _fresh(self, step: int) -> list[Tensor]:
        """Normal random Q, the same in every process."""
        generator = torch.Generator().manual_seed(step)
        sizes = [(columns, rank) for (_, columns), rank in zip(self.shapes, self.ranks, strict=True)]
        return [torch.randn(size, generator=generator).to(self.device) for size in sizes]

    def figures(self, step: int) -> dict[str, float]:
        return self.memories[0].figures()

    def state_dict(self) -> dict[str, Any]:
        right = {part.name: q for part, q in zip(self.parts, self.right, strict=True)}
        return {"workers": [memory.state_dict(self.parts) for memory in self.memories], "right": right}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for memory, saved in zip(self.memories, state["workers"], strict=True):
            memory.load_state_dict(saved, self.parts)
        for part, q in zip(self.parts, self.right, strict=True):
            q.copy_(state["right"][part.name])


def orthonormal(columns: Tensor) -> Tensor:
    """An orthonormal basis [n, r] of the columns of [n, r], n at least r; any basis where they are dependent."""
    return torch.linalg.qr(columns).Q
