"""Optimiser over parameters that are stored in a low precision, with any inner optimiser.

The inner optimiser has float32 stand-ins, which are empty except during their own update: one parameter at a time is
dequantised, updated and stored with stochastic rounding. So peak memory is one layer's float weight, and the update is
computed in float32 by any inner optimiser (torch's, bitsandbytes').

The rounding noise is a function of the run's seed, the step and the parameter's number. So all processes of a run round
alike, and a resumed run rounds like an uninterrupted one, without any state to save.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lmctl.precision.rounding import noise16


class Store(Protocol):
    """Access to one stored parameter."""

    @property
    def parameter(self) -> nn.Parameter: ...

    def read(self) -> Tensor:
        """The values, a float32 copy in the shape of the parameter."""
        ...

    def write(self, values: Tensor, noise: Tensor) -> None:
        """Store new values; `noise` int16 of the same shape."""
        ...

    def state(self) -> Tensor | None:
        """State to save besides the network's own, or None."""
        ...


class StoredOptimizer(Optimizer):
    """`inner` over stored and ordinary parameters; `param_groups` are those of `inner`, with stand-ins."""

    def __init__(self, inner: Optimizer, stores: Sequence[Store], seed: int) -> None:
        # Without torch's __init__, which needs the parameters again: all that it sets is that of the inner optimiser.
        self.inner, self.stores, self.seed = inner, list(stores), seed
        self.taken = 0
        """Number of steps taken: a counter for the noise."""
        place = {id(store.parameter): number for number, store in enumerate(self.stores)}
        self.real = [p for group in inner.param_groups for p in group["params"]]
        self._entries: list[tuple[int, nn.Parameter, int]] = []
        """Group number (loading a state creates new groups), stand-in, store number."""
        for index, group in enumerate(inner.param_groups):
            params = group["params"]
            for at, parameter in enumerate(params):
                if id(parameter) in place:
                    params[at] = nn.Parameter(torch.empty(0, dtype=torch.float32, device=parameter.device))
                    self._entries.append((index, params[at], place[id(parameter)]))

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        groups = self.inner.param_groups
        whole = [group["params"] for group in groups]
        stood_in = {id(work) for _, work, _ in self._entries}
        try:
            for group, params in zip(groups, whole, strict=True):
                group["params"] = [p for p in params if id(p) not in stood_in]
            self._inner_step([group for group in groups if group["params"]])
            for index, work, number in self._entries:
                store, group = self.stores[number], groups[index]
                if store.parameter.grad is not None:
                    work.data, work.grad = store.read(), store.parameter.grad.float()
                    group["params"] = [work]
                    self._inner_step([group])
                    store.write(work.detach(), self._noise(work, number))
                    work.data, work.grad = torch.empty(0, device=work.device), None
        finally:
            self.inner.param_groups = groups
            for group, params in zip(groups, whole, strict=True):
                group["params"] = params
        self.taken += 1

    def _inner_step(self, groups: list[dict[str, Any]]) -> None:
        self.inner.param_groups = groups
        self.inner.step()

    def _noise(self, like: Tensor, number: int) -> Tensor:
        words = np.random.SeedSequence([self.seed & 0xFFFFFFFFFFFFFFFF, self.taken, number]).generate_state(
            1, np.uint64
        )
        generator = torch.Generator(like.device).manual_seed(int(words[0]) >> 1)
        return noise16(like.shape, like.device, generator)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.real:
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad.zero_()

    def state_dict(self) -> dict[str, Any]:
        extra = {number: state for number, store in enumerate(self.stores) if (state := store.state()) is not None}
        return {"inner": self.inner.state_dict(), "taken": self.taken, "stores": extra}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.inner.load_state_dict(state_dict["inner"])
        self.taken = state_dict["taken"]
        for number, saved in state_dict["stores"].items():
            state = self.stores[number].state()
            assert state is not None
            state.copy_(saved)

    def __getattr__(self, name: str) -> Any:
        """Attributes of the inner optimiser: groups, states, and whether it can skip steps on the device."""
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Attributes that a loss scaler sets on a fused optimiser go to the inner one."""
        if name in ("found_inf", "grad_scale"):
            setattr(self.inner, name, value)
        else:
            super().__setattr__(name, value)
