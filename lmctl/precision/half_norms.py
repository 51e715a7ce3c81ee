"""Normalised states in half precision: what a norm returns is rounded once, not by each linear layer that reads it.

A norm computes in float32 whatever it reads. Its output is read by products, which round it anyway (queries, keys and
values each for themselves under torch's autocast), and in post-norm layers by the next residual sum, whose values are
then of the size of 1. The residual stream of pre-norm layers is no norm's output, grows with depth and stays float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def norms_in_half(network: nn.Module) -> None:
    """Have every layer norm and RMS norm of `network` return the dtype of autocast, where it is on."""
    for module in network.modules():
        if isinstance(module, nn.LayerNorm | nn.RMSNorm) or type(module).__name__.endswith(("RMSNorm", "LayerNorm")):
            module.register_forward_hook(_rounded)


def _rounded(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else output
