"""A loss of nothing, that parameters take part in all the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def nothing(parameters: Iterable[Tensor]) -> Tensor:
    """0, with a gradient of 0 for those of `parameters` that learn; 0 without a gradient if there are none."""
    learning = [p for p in parameters if p.requires_grad]
    return Nothing.apply(*learning) if learning else torch.zeros(())


class Nothing(torch.autograd.Function):
    """Zero, with a gradient of zero for every parameter; never looks at their values, which may not be there."""

    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> Tensor:
        ctx.like = [(p.shape, p.dtype, p.device) for p in parameters]
        return torch.zeros((), device=parameters[0].device)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return tuple(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.like)
