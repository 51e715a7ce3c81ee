"""Copies of models whose layers store their weights in a special form (quantised, say) as plain float layers."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


class InOwnForm:
    """A module that stores its weights in a special form."""

    def restored(self) -> nn.Module:
        """The equivalent plain layer with float weights."""
        raise NotImplementedError


def restored_copy(model: nn.Module) -> nn.Module:
    """A copy of `model` in which every `InOwnForm` module is replaced by a plain layer with float weights. The special
    layers themselves are not copied."""
    # `deepcopy` takes an object in its memo as already copied.
    memo: dict[int, object] = {}
    for module in model.modules():
        if isinstance(module, InOwnForm):
            memo[id(module)] = module.restored()
    return copy.deepcopy(model, memo)
