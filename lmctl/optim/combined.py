"""Several optimisers behind one `torch.optim.Optimizer`, each for parameter groups of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer


class CombinedOptimizer(Optimizer):
    """Combined optimiser: each parameter group names its optimiser under "rule". States and groups are kept here, so
    that checkpoints, learning rate schedules and gradient scalers see a single optimiser."""

    def __init__(self, rules: Mapping[str, Optimizer]) -> None:
        self.rules = dict(rules)
        super().__init__([{**group, "rule": name} for name, rule in rules.items() for group in rule.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for name, rule in self.rules.items():
            # Set again in every step: loading a state replaces these objects, and stored weights are stepped in parts.
            rule.state = self.state
            rule.param_groups = [group for group in self.param_groups if group["rule"] == name]
            rule.step()
