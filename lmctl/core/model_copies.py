"""Copies of models whose layers keep their weights in some form of their own."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


class InOwnForm:
    """A module whose weights are kept in some form of their own."""

    def restored(self) -> nn.Module:
        """A plain layer with plain float weights."""
        raise NotImplementedError


def restored_copy(model: nn.Module) -> nn.Module:
    """A copy of `model` in which every module that is `InOwnForm` stands as a plain layer with plain float weights. The
    layers in their own form are not copied."""
    # What `deepcopy` finds in its memo it takes for the copy already made.
    memo: dict[int, object] = {}
    for module in model.modules():
        if isinstance(module, InOwnForm):
            memo[id(module)] = module.restored()
    return copy.deepcopy(model, memo)
