"""bf16 storage of parameters: conversion, access for the optimiser, and fp32 products as a reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lmctl.core.errors import ConfigError
from lmctl.precision.base import recurrent
from lmctl.precision.counting import Kept
from lmctl.precision.emulation import PRODUCTS
from lmctl.precision.rounding import to_bf16
from lmctl.precision.stored_optimiser import Store


def to_bf16_matrices(network: nn.Module) -> list[str]:
    """Convert every float parameter of two or more dimensions to bf16, in place; returns a line with their number."""
    kept = total = 0
    for module in network.modules():
        if isinstance(module, nn.RNNBase):
            raise ConfigError(f"precision: {recurrent(type(module).__name__)}")
        for parameter in module.parameters(recurse=False):
            if parameter.dtype == torch.float32 and parameter.ndim >= 2:  # a tied weight is converted once
                before = parameter.data
                parameter.data = before.to(torch.bfloat16)
                module.kept = Kept.of("bf16", before, parameter.data.float())  # type: ignore[assignment]
    for parameter in network.parameters():
        total += parameter.numel()
        kept += parameter.numel() if parameter.dtype == torch.bfloat16 else 0
    return [f"bf16 weights: {kept:,} of {total:,}; norms and biases stay in fp32"]


class ParameterStore:
    """A bf16 parameter, for the optimiser; with `kahan` the last rounding error is kept, in bf16 as well."""

    def __init__(self, parameter: nn.Parameter, rounding: str) -> None:
        self.parameter, self.rounding = parameter, rounding
        self.error = torch.zeros_like(parameter, requires_grad=False) if rounding == "kahan" else None

    def read(self) -> Tensor:
        values = self.parameter.detach().float()
        return values if self.error is None else values.add_(self.error)

    def write(self, values: Tensor, noise: Tensor) -> None:
        rounded = to_bf16(values, noise if self.rounding == "stochastic" else None)
        self.parameter.copy_(rounded)
        if self.error is not None:
            self.error.copy_(values - rounded.float())

    def state(self) -> Tensor | None:
        return self.error


def stores_of(learner: nn.Module, rounding: str) -> list[Store]:
    """One store per trainable bf16 parameter."""
    return [ParameterStore(p, rounding) for p in learner.parameters() if p.requires_grad and p.dtype == torch.bfloat16]


class ProductsInFp32(TorchFunctionMode):
    """Torch function mode: every product casts its operands to fp32 and returns fp32."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in PRODUCTS:
            return func(*args, **kwargs)
        with torch.autocast(args[0].device.type, enabled=False):
            return func(*map(_full, args), **{name: _full(value) for name, value in kwargs.items()})


@contextmanager
def products_of_bf16_in_fp32(device: torch.device) -> Iterator[None]:
    """Context in which the same bf16 weights are multiplied in fp32; autocast handles norms of mixed dtypes."""
    with torch.autocast(device.type, dtype=torch.bfloat16), ProductsInFp32():
        yield


def _full(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
