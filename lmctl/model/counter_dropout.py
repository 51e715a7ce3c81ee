"""Conversion of a network's dropout, whoever computes it, to dropout from a counter (`lmctl.kernels.dropout`).

Modules change their class, as linear layers do for low precision. `nn.Dropout` becomes `CounterDropout`. In some
architectures (BART, Marian, OPT) a layer has no such module, but keeps a rate and calls `F.dropout`: while such a layer
runs, calls of that function are answered here.
"""

from __future__ import annotations

from functools import cache, wraps
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lmctl.kernels.dropout import dropout


def use_counter_dropout(network: nn.Module) -> None:
    """Let all dropout of `network` on a CPU be dropout from a counter, in place."""
    for module in network.modules():
        kind: Any = type(module)
        if kind is nn.Dropout:
            module.__class__ = CounterDropout
        elif _keeps_rate(module):
            module.__class__ = _answered(kind)


class CounterDropout(nn.Dropout):
    """`nn.Dropout` from a counter."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, self.training)


def _keeps_rate(module: nn.Module) -> bool:
    """Whether a module of transformers has a number that is a rate of dropout, by the name it goes by there."""
    return any("dropout" in name and isinstance(value, float) and value > 0 for name, value in vars(module).items())


@cache
def _answered(cls: type[Any]) -> type[Any]:
    """A class of modules with the name and the signature of `cls`, whose calls of `F.dropout` are answered here. It
    overrides `forward`, because that is what transformers calls again when a layer is recomputed."""

    @wraps(cls.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _Functional():
            return cls.forward(self, *args, **kwargs)

    return type(cls.__name__, (cls,), {"forward": forward, "__module__": cls.__module__, "__doc__": cls.__doc__})


class _Functional(TorchFunctionMode):
    """Answers `F.dropout`, and passes all other functions on."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_functional if func is F.dropout else func)(*args, **(kwargs or {}))


def _functional(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`F.dropout`, never in place: its callers use what it returns."""
    return dropout(input, p, training)
