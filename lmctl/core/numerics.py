"""In which numbers a run computes, and keeps its weights: the groups `precision` and `quantize`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lmctl.core.places import Where
    from lmctl.core.steps import OptimSpec
    from lmctl.core.tasks import ModelSpec


class LossScaler(ABC):
    """Guards one optimiser step against gradients that are not finite."""

    @property
    def value(self) -> float:
        """What losses are multiplied by; reading it may wait for the device."""
        return 1.0

    @property
    def dynamic(self) -> bool:
        """Whether a step that is not taken is usual, because the scale is still looked for."""
        return False

    def decides_on_device(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether a step of `optimizer` on a GPU is left out there, without the host waiting for it."""
        return False

    @abstractmethod
    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale."""

    @abstractmethod
    def step(self, optimizer: torch.optim.Optimizer, grad_norm: Tensor) -> bool:
        """Take the step if the gradients are finite; says whether it was taken."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]: ...

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class RunParts(Protocol):
    """What a precision may ask about the rest of the run: the parts of a plan that it has to go with."""

    @property
    def model(self) -> ModelSpec:
        """Optional attributes: `linear_layers` False where there are none but heads; `lora_rank`, see `Pretrained`."""
        ...

    @property
    def runner(self) -> Where: ...

    @property
    def compile(self) -> bool: ...


@runtime_checkable
class Precision(Protocol):
    """Group `precision`: number formats of parameters, products and updates; `lmctl.precision.base.Standard` has the
    defaults."""

    @property
    def product(self) -> str | None:
        """The low-precision product that the self-proof must find in the first forward pass."""
        ...

    @property
    def storage(self) -> str | None:
        """The format in which the self-proof must find weights kept."""
        ...

    @property
    def least_decibel(self) -> float:
        """The least signal-to-noise ratio against float32 that the self-proof accepts."""
        ...

    def refuse_run(self, run: RunParts) -> str | None:
        """Why it does not go with the rest of the run and what is nearest, or None; asked before any work."""
        ...

    def refuse(self, device: torch.device) -> str | None:
        """Why this device cannot do it and what is nearest, or None."""
        ...

    def convert(self, network: nn.Module, device: torch.device) -> list[str]:
        """Change the modules of a network that is loaded, still on the CPU, and soon on `device`, in place; returns
        what is worth saying about it. Names in its `state_dict` may change, those of parameters must not."""
        ...

    def products(self, device: torch.device) -> AbstractContextManager[Any]:
        """Inside it, matrix products run in this precision."""
        ...

    def reference(self, device: torch.device) -> AbstractContextManager[Any]:
        """Inside it, and outside of `products`, the same network computes in float32."""
        ...

    def optimiser(self, spec: OptimSpec, learner: nn.Module, device: torch.device, seed: int) -> torch.optim.Optimizer:
        """The update rule of `spec`, for parameters as this precision keeps them. `seed` is the run's, the same in
        all processes: what is drawn from it must be, too."""
        ...

    def restore(self, model: nn.Module) -> nn.Module:
        """`model`, or a copy, with plain float weights in plain layers, for export."""
        ...

    def scaler(self, device: torch.device) -> LossScaler: ...

    def table(self, device: torch.device) -> dict[str, str]:
        """dtypes by role: parameter, master, compute, accumulate, gradient, reduction, optimiser."""
        ...


@runtime_checkable
class Quantization(Protocol):
    """Group `quantize`: in what form the weights of a model that has learnt are kept."""

    @property
    def product(self) -> str | None:
        """The low-precision product that a forward pass must have, or it did nothing."""
        ...

    @property
    def storage(self) -> str:
        """The format in which weights must be found."""
        ...

    def quantize(self, network: nn.Module, device: torch.device) -> list[str]:
        """Change the layers of a network that is on the CPU, and soon on `device`, in place; returns what is worth
        saying about it. ConfigError if there is nothing to change."""
        ...
