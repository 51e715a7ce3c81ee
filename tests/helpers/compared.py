"""Rows of pieces for a network, and what two ways to compute the same are compared by."""

from __future__ import annotations

import pytest
import torch
from small import vocabulary
from torch import Tensor, nn


def padded(lengths: list[int], seed: int = 0, pad: int = 0) -> tuple[Tensor, Tensor]:
    """Random pieces in rows of these lengths, padded at the end, and their mask."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(5, vocabulary().size, mask.shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(mask, ids, pad), mask


def same_gradients(
    network: nn.Module, ours: Tensor, theirs: Tensor, atol: float = 1e-5, rtol: float = 1e-4
) -> dict[str, Tensor]:
    """Two losses are the same, and so are their gradients by all that learns; returns these by name."""
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    learns = {name: p for name, p in network.named_parameters() if p.requires_grad}
    first, second = (torch.autograd.grad(loss, list(learns.values()), allow_unused=True) for loss in (ours, theirs))
    for name, one, other in zip(learns, first, second, strict=True):
        assert (one is None) == (other is None), name
        assert one is None or torch.allclose(one, other, atol=atol, rtol=rtol), name
    return {name: gradient for name, gradient in zip(learns, first, strict=True) if gradient is not None}


def relative(one: Tensor, other: Tensor) -> float:
    """How far apart they are, as a share of how large the `other` is."""
    one, other = one.detach().double(), other.detach().double()
    return float((one - other).norm() / other.norm())
