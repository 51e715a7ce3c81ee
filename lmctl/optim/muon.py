"""Muon: SGD momentum with the update of each hidden matrix orthogonalised by Newton-Schulz iterations (Jordan et al.
2024, https://kellerjordan.github.io/posts/muon); AdamW for everything else, as published.

Updates of a matrix [A, B] are scaled by 0.2 sqrt(max(A, B)), which gives them the usual root mean square of AdamW's
updates (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2): both optimisers share one learning rate and
one weight decay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from lmctl.optim.base import OptimSpec, check_moments
from lmctl.optim.groups import hidden_matrices, parameter_groups

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Muon(OptimSpec):
    """Muon on the matrices inside layers, AdamW on embeddings, heads and vectors; no weight decay of vectors."""

    adaptive: ClassVar[bool] = True
    whole_matrices: ClassVar[bool] = True

    lr: float = 1.5e-3
    weight_decay: float = 0.01
    momentum: float = 0.95
    nesterov: bool = True
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    eps: float = 1e-8
    layer_decay: float = 1.0
    cautious_updates: bool = False
    cautious_decay: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_moments(self.betas, self.eps)
        if not 0 < self.momentum < 1:
            raise ValueError(f"momentum must be above 0 and below 1, got {self.momentum}")

    def optimiser(self, network: nn.Module, device: torch.device) -> torch.optim.Optimizer:
        import torch

        from lmctl.optim.cautious import cautious
        from lmctl.optim.combined import CombinedOptimizer

        groups = parameter_groups(network, self.weight_decay, self.layer_decay)
        hidden = hidden_matrices(network)
        careful = self.cautious_updates, self.cautious_decay
        muon = cautious(torch.optim.Muon, *careful)(  # type: ignore[call-arg]
            list(_those(groups, hidden, True)),
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            adjust_lr_fn="match_rms_adamw",
        )
        betas = (self.betas[0], self.betas[1])
        adamw = cautious(torch.optim.AdamW, *careful)(  # type: ignore[call-arg]
            list(_those(groups, hidden, False)), lr=self.lr, betas=betas, eps=self.eps, fused=True
        )
        return CombinedOptimizer({"muon": muon, "adamw": adamw})


def _those(groups: list[dict[str, Any]], hidden: set[int], wanted: bool) -> Iterator[dict[str, Any]]:
    """The parameter groups reduced to parameters that are in `hidden` (`wanted`), or are not."""
    for group in groups:
        yield {**group, "params": [p for p in group["params"] if (id(p) in hidden) is wanted]}
