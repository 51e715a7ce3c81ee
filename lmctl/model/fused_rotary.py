"""Rotary positions of transformers' models on a CPU in one pass (`lmctl.kernels.rotary`).

Architectures with rotary positions have a function of one name in the module of their code, most of them the same one.
It is replaced there if it computes, on a small input, what the kernel does.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from lmctl.kernels import backend
from lmctl.kernels.plain.rotary import rotated
from lmctl.kernels.rotary import DTYPES, rotate

Rotary = Callable[..., tuple[Tensor, Tensor]]


def fuse_rotary(model: Any) -> None:
    """Let the code of `model` rotate queries and keys by the kernel, if it has such a function."""
    code = vars(sys.modules[type(model).__module__])
    original = code.get("apply_rotary_pos_emb")
    if original is None or isinstance(original, FusedRotary):
        return
    with _disable_current_modes():  # tensors of the example have data, whatever those of the model have
        if _is_that_function(original):
            code["apply_rotary_pos_emb"] = FusedRotary(original)


class FusedRotary:
    """transformers' function that rotates queries and keys, on a CPU computed by the kernel: the result is the same to
    the bit; in half precision the gradient is rounded once less."""

    def __init__(self, original: Rotary) -> None:
        self.original = original
        self.keeps_dtype = original(*_example(torch.bfloat16))[0].dtype == torch.bfloat16
        """Whether rotated bfloat16 stays so; others become float32, which autocast makes bfloat16 again."""
        update_wrapper(self, original)

    def __call__(self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
        """As the original: [R, A, L, D] each, or [R, L, A, D] with `unsqueeze_dim` 2, and angles [R or 1, L, D]."""
        if unsqueeze_dim not in (1, 2) or cos.dim() != 3 or not (self._takes(q, cos) and self._takes(k, cos)):
            return self.original(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim)
        cos, sin = cos.float(), sin.float()
        if unsqueeze_dim == 2:
            return rotate(q, cos, sin), rotate(k, cos, sin)
        return rotate(q.transpose(1, 2), cos, sin).transpose(1, 2), rotate(k.transpose(1, 2), cos, sin).transpose(1, 2)

    def _takes(self, x: Tensor, cos: Tensor) -> bool:
        if not backend.takes(x) or not {x.dtype, cos.dtype} <= set(DTYPES):
            return False
        if x.dim() != 4 or x.shape[-1] != cos.shape[-1] or len(cos) not in (1, len(x)):
            return False
        if self.keeps_dtype or x.dtype == cos.dtype == torch.float32:
            return True
        return cos.dtype == torch.float32 and torch.is_autocast_enabled("cpu")


def _is_that_function(original: Rotary) -> bool:
    """Whether it has the usual parameters, and rotates number i and number i + D/2 in float32."""
    if list(inspect.signature(original).parameters) != ["q", "k", "cos", "sin", "unsqueeze_dim"]:
        return False
    q, k, cos, sin = _example(torch.float32)
    expected = [torch.empty_like(x.transpose(1, 2)) for x in (q, k)]
    for x, out in zip((q, k), expected, strict=True):
        rotated(x.transpose(1, 2), cos, sin, out)
    return all(torch.equal(x, out.transpose(1, 2)) for x, out in zip(original(q, k, cos, sin), expected, strict=True))


def _example(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, and angles that differ in all numbers."""
    values = torch.linspace(-2, 3, 3 * 2 * 5 * 8, device="cpu").view(3, 2, 5, 8)
    angles = torch.linspace(0, 6, 3 * 5 * 8, device="cpu").view(3, 5, 8)
    return values.to(dtype), values[:, :1].flip(-1).to(dtype), angles.cos(), angles.sin()
