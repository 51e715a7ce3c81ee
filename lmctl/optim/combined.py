"""Several update rules as one optimiser, each for parameters of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer


class Rules(Optimizer):
    """Every group of parameters names the rule that steps on it, under "rule". States and groups are kept here, so that
    checkpoints, schedules and gradient scalers see one optimiser."""

    def __init__(self, rules: Mapping[str, Optimizer]) -> None:
        self.rules = dict(rules)
        super().__init__([{**group, "rule": name} for name, rule in rules.items() for group in rule.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for name, rule in self.rules.items():
            # Handed over anew: loading a state makes other dictionaries, and stored weights step in parts.
            rule.state = self.state
            rule.param_groups = [group for group in self.param_groups if group["rule"] == name]
            rule.step()
