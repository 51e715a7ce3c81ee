"""Conversion of a network's dropout, whoever computes it, to dropout from a counter (`lmctl.kernels.dropout`).

`nn.Dropout` modules change their class, as linear layers do for low precision. Some architectures (BART, Marian, OPT)
have no such module: a layer keeps a rate and calls `F.dropout`. While such a layer runs, calls of that function are
answered here.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lmctl.kernels.dropout import dropout


def use_counter_dropout(network: nn.Module) -> None:
    """Let all dropout of `network` on a CPU be dropout from a counter, in place."""
    for module in network.modules():
        if type(module) is nn.Dropout:
            module.__class__ = CounterDropout
        elif _keeps_rate(module):
            module.register_forward_pre_hook(_begin)
            module.register_forward_hook(_end, always_call=True)


class CounterDropout(nn.Dropout):
    """`nn.Dropout` from a counter."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, self.training)


class _Functional(TorchFunctionMode):
    """Answers `F.dropout`, and passes all other functions on."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_functional if func is F.dropout else func)(*args, **(kwargs or {}))


def _functional(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`F.dropout`, never in place: its callers use what it returns."""
    return dropout(input, p, training)


def _keeps_rate(module: nn.Module) -> bool:
    """Whether a module of transformers has a number that is a rate of dropout, by the name it goes by there."""
    return any("dropout" in name and isinstance(value, float) and value > 0 for name, value in vars(module).items())


def _begin(module: nn.Module, inputs: Any) -> None:
    _Functional().__enter__()


def _end(module: nn.Module, inputs: Any, outputs: Any) -> None:
    _Functional().__exit__(None, None, None)
