"""Any optimiser, over parameters that are kept in a low precision.

The inner optimiser sees float32 stand-ins. They are empty but for the moment of their own step: one parameter after the
other is read, stepped on and written back with stochastic rounding, so the peak is one layer's float weight, and
whatever the inner optimiser is (torch's, bitsandbytes'), its arithmetic is float32's.

The noise comes from the run's seed, the step and the parameter's number, so all processes of a run round alike, and a
resumed run rounds as the undisturbed one, with nothing to save.
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
    """One parameter, and where its values are."""

    @property
    def parameter(self) -> nn.Parameter: ...

    def read(self) -> Tensor:
        """The values, float32, in the shape of the parameter; the caller's to change."""
        ...

    def write(self, values: Tensor, noise: Tensor) -> None:
        """Keep these instead; `noise` int16 of the same shape."""
        ...

    def state(self) -> Tensor | None:
        """What must be saved besides the network's own state."""
        ...


class StoredOptimizer(Optimizer):
    """`inner` over the parameters of `stores` and others; `param_groups` are the inner ones, with stand-ins."""

    def __init__(self, inner: Optimizer, stores: Sequence[Store], seed: int) -> None:
        # torch's own __init__ would want the parameters once more; everything it sets is the inner optimiser's.
        self.inner, self.stores, self.seed = inner, list(stores), seed
        self.taken = 0
        """Steps taken; the noise depends on it."""
        place = {id(store.parameter): number for number, store in enumerate(self.stores)}
        self.real = [p for group in inner.param_groups for p in group["params"]]
        self._entries: list[tuple[int, nn.Parameter, int]] = []
        """Number of the group (loading a state makes new groups), stand-in, number of the store."""
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
        """Groups, states and whether the step can be made on the device: as the inner optimiser has them."""
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """What a loss scaler tells a fused optimiser is for the inner one."""
        if name in ("found_inf", "grad_scale"):
            setattr(self.inner, name, value)
        else:
            super().__setattr__(name, value)
