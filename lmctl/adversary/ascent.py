"""Steps of a shift [R, L, H] along its gradient; each row on its own, in the L2 norm over [L, H]."""

from __future__ import annotations

import torch
from torch import Tensor


def norms(shift: Tensor) -> Tensor:
    """[R, 1, 1]: how long each row is."""
    return torch.linalg.vector_norm(shift, dim=(1, 2), keepdim=True)


def direction(gradient: Tensor) -> Tensor:
    """Each row over its norm. A row whose gradient is 0, or is not finite (which happens while fp16 looks for its loss
    scale), has no direction and stays 0: the gradients of the parameters tell of an overflow."""
    largest = gradient.abs().amax(dim=(1, 2), keepdim=True)
    usable = torch.isfinite(largest) & (largest > 0)
    # Over the largest first: squares of very small gradients would vanish.
    rows = torch.where(usable, gradient / largest, 0.0)
    return rows / norms(rows).clamp_min(1.0)


def projected(shift: Tensor, radius: float) -> Tensor:
    """The nearest shift with no row longer than `radius`."""
    return shift * (radius / norms(shift).clamp_min(radius))


def climbed(shift: Tensor, gradient: Tensor, size: float, radius: float) -> Tensor:
    """`shift` after a step of length `size` along `gradient`, back in the ball of `radius`; without history."""
    return projected(shift.detach() + size * direction(gradient), radius)
