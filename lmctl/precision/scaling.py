"""What stands between gradients and the optimiser step: nothing but a check, or fp16's dynamic loss scale."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LossScaler(ABC):
    """What stands between gradients and the optimiser: loss scaling, and a guard against what is not finite."""

    @property
    def value(self) -> float:
        """What losses, and so gradients, are multiplied by now."""
        return 1.0

    @property
    def skips(self) -> bool:
        """Whether a step that is not taken is part of the method: the scale falls, and the run goes on."""
        return False

    def decides_on_device(self, optimizer: Optimizer) -> bool:
        """Whether a step of `optimizer` on a GPU is left out there, without the host waiting for it."""
        return False

    def unscale(self, optimizer: Optimizer) -> None:
        """Divide the gradients by `value`, in place."""
        return

    @abstractmethod
    def step(self, optimizer: Optimizer, grad_norm: Tensor) -> bool:
        """Take the step if the gradients are finite; says whether it was taken."""

    def state_dict(self) -> dict[str, Any]:
        """What it keeps from step to step."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        return


class Unscaled(LossScaler):
    """No scaling. A step whose gradients are not finite is not taken, and the runner ends the run.

    On a GPU the fused optimiser itself decides on the device (`found_inf`, the way torch's GradScaler tells it),
    so that the host need not wait for the gradients' norm in every step; `step` then says True and the runner
    sees the norm at the next log point.
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
        self.scaler.scale(torch.zeros((), device=device))  # or it has no state yet

    def unscale(self, optimizer: Optimizer) -> None:
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer, grad_norm: Tensor) -> bool:
        before = self.scaler.get_scale()
        self.scaler.step(optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= before

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
