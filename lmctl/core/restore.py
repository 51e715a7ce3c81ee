"""Copies of models whose layers keep their weights in some form of their own."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def restored_copy(model: nn.Module) -> nn.Module:
    """A copy of `model` in which every module that has a `restored()` stands as what that gives: a plain layer with
    plain float weights. The layers in their own form are not copied."""
    # What `deepcopy` finds in its memo it takes for the copy already made.
    memo: dict[int, object] = {}
    for module in model.modules():
        restored: Any = getattr(module, "restored", None)
        if restored is not None:
            memo[id(module)] = restored()
    return copy.deepcopy(model, memo)
