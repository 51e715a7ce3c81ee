"""PowerSGD (Vogels et al. 2019, algorithms 1 and 2): a gradient matrix M [n, m] as P Q^T, with P [n, r] and Q [m, r].

One step of subspace iteration (power iteration), from the Q of the step before:

    P = mean of M Q,  orthonormalised        one all-reduce for all matrices
    Q = mean of M^T P                        another one
    M is approximated by P Q^T

Both rounds are linear in M, so the result is the same as if the mean of all workers' gradients had been compressed.
Error feedback: the residual of a worker is its M minus P (M^T P)^T.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lmctl.compression.error_feedback import ErrorFeedback
from lmctl.compression.gradient_layout import Part, matrix_shape
from lmctl.compression.wire import Wire


class LowRank:
    """PowerSGD: low-rank compression of gradient matrices, with error feedback."""

    def __init__(self, parts: list[Part], wire: Wire, rank: int, warm_start: bool, memory: ErrorFeedback) -> None:
        self.parts, self.wire, self.warm_start, self.memory = parts, wire, warm_start, memory
        self.shapes = [matrix_shape(part.shape) for part in parts]
        self.ranks = [min(rank, *shape) for shape in self.shapes]
        self.device = parts[0].parameter.device
        self.right = self._fresh(0)
        """Q of every matrix from the last step (warm start)."""

    def mean(self, gradient: Tensor, fine: Tensor, step: int) -> Tensor:
        """As `Pruned.mean`."""
        v = self.memory.compensate(gradient)
        start = self.right if self.warm_start else self._fresh(step)
        right = [orthonormal(q) for q in start]
        left = self._agree([m @ q for m, q in zip(self._matrices(v), right, strict=True)])
        left = [orthonormal(torch.where(fine, p, 0.0)) for p in left]
        own = [m.T @ p for m, p in zip(self._matrices(v), left, strict=True)]
        right = self._agree(own)
        self.memory.subtract(v, slice(None), self._product(left, own))
        self.memory.commit(v, fine)
        for kept, q in zip(self.right, right, strict=True):
            torch.where(fine, q, kept, out=kept)
        return self._product(left, right)

    def _agree(self, factors: list[Tensor]) -> list[Tensor]:
        """All-reduce mean of each factor, in one message."""
        flat = self.wire.all_reduce(torch.cat([f.reshape(-1) for f in factors])) / self.wire.world
        parts = flat.split([f.numel() for f in factors])
        return [part.view_as(f) for part, f in zip(parts, factors, strict=True)]

    def _matrices(self, vector: Tensor) -> list[Tensor]:
        return [part.of(vector).view(shape) for part, shape in zip(self.parts, self.shapes, strict=True)]

    def _product(self, left: list[Tensor], right: list[Tensor]) -> Tensor:
        """P Q^T of every matrix, concatenated: float32 [n]."""
        return torch.cat([(p @ q.T).reshape(-1) for p, q in zip(left, right, strict=True)])

    def _fresh(self, step: int) -> list[Tensor]:
        """Random normal Q, the same in every process."""
        generator = torch.Generator().manual_seed(step)
        sizes = [(columns, rank) for (_, columns), rank in zip(self.shapes, self.ranks, strict=True)]
        return [torch.randn(size, generator=generator).to(self.device) for size in sizes]

    def figures(self, step: int) -> dict[str, float]:
        return self.memory.figures()

    def state_dict(self) -> dict[str, Any]:
        right = {part.name: q for part, q in zip(self.parts, self.right, strict=True)}
        return {"memory": self.memory.state_dict(self.parts), "right": right}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memory.load_state_dict(state["memory"], self.parts)
        for part, q in zip(self.parts, self.right, strict=True):
            q.copy_(state["right"][part.name])


def orthonormal(columns: Tensor) -> Tensor:
    """Orthonormal basis [n, r] of the columns of [n, r], n at least r; any basis if they are linearly dependent."""
    return torch.linalg.qr(columns).Q
