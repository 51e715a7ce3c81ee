"""Loss scaling, and the check for gradients that are not finite before an optimiser step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LossScaler(ABC):
    """Loss scaling, and skipping of steps whose gradients are not finite."""

    @property
    def value(self) -> float:
        """The loss scale: losses, and so gradients, are multiplied by it."""
        return 1.0

    @property
    def skips(self) -> bool:
        """Whether skipped steps are part of the method: the scale falls, and the run continues."""
        return False

    def decides_on_device(self, optimizer: Optimizer) -> bool:
        """Whether a step of `optimizer` is skipped on the GPU itself, without a synchronisation with the host."""
        return False

    def unscale(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the loss scale, in place."""
        return

    @abstractmethod
    def step(self, optimizer: Optimizer, grad_norm: Tensor) -> bool:
        """Step the optimiser if the gradients are finite; returns whether it did."""

    def pass_over(self, optimizer: Optimizer, grad_norm: Tensor) -> bool:
        """End a step without an update, after `unscale`; returns False, as `step` does where it does not step."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """State between steps."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        return


class Unscaled(LossScaler):
    """No loss scaling. A step whose gradients are not finite is skipped, and the trainer ends the run.

    On a GPU the fused optimiser skips it on the device (`found_inf`, as torch's GradScaler passes it), so that the host
    need not wait for the gradient norm in every step. `step` then always returns True, and the trainer sees the norm at
    the next log point.
    """

    def decides_on_device(self, optimizer: Optimizer) -> bool:
        return getattr(optimizer, "_step_supports_amp_scaling", False)

    def step(self, optimizer: Optimizer, grad_norm: Tensor) -> bool:
        if grad_norm.device.type != "cpu" and self.decides_on_device(optimizer):
            optimizer.grad_scale = None  # type: ignore[attr-defined]
            optimizer.found_inf = (~torch.isfinite(grad_norm)).float()  # type: ignore[attr-defined]
            optimizer.step()
            return True
        if not torch.isfinite(grad_norm):
            return False
        optimizer.step()
        return True


class DynamicScale(LossScaler):
    """Dynamic loss scaling (Micikevicius et al. 2018, section 3.2) by torch's own GradScaler, on any device.

    The scale halves when gradients overflow, and that step is skipped; it doubles after `growth_interval` steps
    without overflow.
    """

    def __init__(self, device: torch.device, initial: float, growth_interval: int) -> None:
        self.scaler = torch.amp.GradScaler(device.type, init_scale=initial, growth_interval=growth_interval)
        self.scaler.scale(torch.zeros((), device=device))  # creates its state, which it does lazily

    def unscale(self, optimizer: Optimizer) -> None:
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer, grad_norm: Tensor) -> bool:
        before = self.scaler.get_scale()
        self.scaler.step(optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= before

    def pass_over(self, optimizer: Optimizer, grad_norm: Tensor) -> bool:
        if torch.isfinite(grad_norm):
            self.scaler.update()
            return False
        return self.step(optimizer, grad_norm)  # the scale falls

    @property
    def skips(self) -> bool:
        return True

    @property
    def value(self) -> float:
        return self.scaler.get_scale()

    def state_dict(self) -> dict[str, Any]:
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scaler.load_state_dict(state)
