"""GELU in its tanh form as one operation (Hendrycks and Gimpel 2016, section 2).

GPT-2's and some T5s' activation is eight operations in transformers, each with a pass over memory and results kept for
the backward pass. torch has the same function fused: equal to float precision, and in half precision rounded once.
"""

from __future__ import annotations

from torch import nn
from transformers.activations import NewGELUActivation


def fuse_gelus(model: nn.Module) -> None:
    """Replace every `NewGELUActivation` of `model`, in place; it has no weights."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is NewGELUActivation:
                setattr(module, name, nn.GELU(approximate="tanh"))
