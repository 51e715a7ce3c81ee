"""Cautious optimisers: steps that go only where they agree with the gradient, and decay only where the step does.

- Updates (Liang et al. 2024, "Cautious optimizers: improving training with one line of code", algorithm 1): what of a
  step would go against the newest gradient is left out, and the rest is lengthened by its share of the weights.
- Decay (Chen et al. 2025, "Cautious weight decay"): a weight decays only where the step makes it smaller as well.

Both look at what the rule did to the weights, so that it may be any, and torch's fused ones stay fused. They cost a
copy of the weights during the step, when activations are gone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

LEAST_SHARE = 1e-3
"""Least share of the weights that is taken to agree, which bounds how much a step is lengthened (the authors' code)."""


class Cautious(Optimizer):
    """Base class of cautious optimisers: the optimiser that it changes is the next base."""

    updates = False
    """Whether steps go only where they agree with the gradient."""
    decay = False
    """Whether weights decay only where the step makes them smaller."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._step_supports_amp_scaling = False  # a step that is skipped on the device would decay all the same

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        moving = [
            (p, p.detach().clone(), group["lr"] * group["weight_decay"])
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        decays = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            group["weight_decay"] = 0.0
        try:
            super().step()
        finally:
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay
        for parameter, before, decay in moving:
            move = parameter - before
            if self.updates:
                agrees = (move * parameter.grad < 0).to(move.dtype)
                move.mul_(agrees.div_(agrees.mean().clamp(min=LEAST_SHARE)))
                torch.add(before, move, out=parameter)
            if decay:
                pull = before.mul_(move * before < 0) if self.decay else before
                parameter.sub_(pull, alpha=decay)


def cautious(rule: type[Optimizer], updates: bool, decay: bool) -> type[Optimizer]:
    """The optimiser class `rule`, cautious in its `updates` and its `decay`; `rule` itself if in neither."""
    if not (updates or decay):
        return rule
    return type(f"Cautious{rule.__name__}", (Cautious, rule), {"updates": updates, "decay": decay})
