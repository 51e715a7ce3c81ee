"""`adversary=none`: plain training without perturbations."""

from __future__ import annotations

from dataclasses import dataclass

from lmctl.adversary.base import Adversary, AttackedBatch, Outcome, View


@dataclass(frozen=True)
class Clean(Adversary):
    """One forward and backward pass."""

    def forward_backward(self, micro: AttackedBatch) -> Outcome:
        return Outcome(micro.forward_backward(View(), last=True).losses[0], {})
