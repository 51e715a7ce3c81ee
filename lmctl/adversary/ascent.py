"""Projected gradient ascent on an embedding perturbation [R, L, H]; L2 norms per row, over [L, H]."""

from __future__ import annotations

import torch
from torch import Tensor


def norms(shift: Tensor) -> Tensor:
    """The L2 norm of each row: [R, 1, 1]."""
    return torch.linalg.vector_norm(shift, dim=(1, 2), keepdim=True)


def normalise(gradient: Tensor) -> Tensor:
    """The gradient normalised per row, to L2 norm 1. A row whose gradient is 0 or not finite (fp16 produces these while
    dynamic loss scaling searches for its scale) becomes 0: the parameters' gradients report the overflow."""
    largest = gradient.abs().amax(dim=(1, 2), keepdim=True)
    usable = torch.isfinite(largest) & (largest > 0)
    # Divided by the largest magnitude first: squares of very small gradients would underflow.
    rows = torch.where(usable, gradient / largest, 0.0)
    return rows / norms(rows).clamp_min(1.0)


def project(shift: Tensor, radius: float) -> Tensor:
    """Projection onto the ball: the nearest shift whose rows have norm `radius` at most."""
    return shift * (radius / norms(shift).clamp_min(radius))


def ascent_step(shift: Tensor, gradient: Tensor, size: float, radius: float) -> Tensor:
    """One ascent step: `shift` plus `size` times the normalised `gradient`, projected onto the ball; detached."""
    return project(shift.detach() + size * normalise(gradient), radius)
