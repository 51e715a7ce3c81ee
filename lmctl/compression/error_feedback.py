"""Error feedback and momentum correction: the residual of what a worker has not sent yet.

Error feedback (Seide et al. 2014; Karimireddy et al. 2019): with gradient g and residual e, v = e + g is compressed,
and the new e is v minus what was sent. Nothing is lost, only delayed.

Momentum correction (Lin et al. 2018, Deep Gradient Compression, section 3.2 and algorithm 4): momentum is applied
before compression, not after it, so that a delayed gradient arrives with its momentum,

    u = m u + g,    v = e + u,

and momentum factor masking sets u to 0 where values were sent, which stops stale momentum. Tensors that are sent
uncompressed have momentum too, after they were averaged (`exchange.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lmctl.compression.gradient_layout import Part


class ErrorFeedback:
    """Residual and velocity of one worker, float32 [n] each, if they are switched on."""

    def __init__(self, n: int, device: torch.device, feedback: bool, momentum: float, mask: bool) -> None:
        self.momentum, self.mask = momentum, mask
        self.residual = torch.zeros(n, device=device) if feedback else None
        self.velocity = torch.zeros(n, device=device) if momentum else None
        self._velocity: Tensor | None = None
        """Velocity of the current step, before `commit`."""

    def compensate(self, gradient: Tensor) -> Tensor:
        """v float32 [n], to be compressed; the state does not change. `gradient` [n] is overwritten."""
        if self.residual is None:
            return gradient
        if self.velocity is None:
            return gradient.add_(self.residual)
        self._velocity = gradient.add_(self.velocity, alpha=self.momentum)
        return self._velocity + self.residual

    def subtract(self, v: Tensor, where: Tensor | slice, values: Tensor) -> None:
        """Subtract what was sent: `values` at the indices `where` of v, each index once."""
        if self.residual is not None:
            v[where] -= values
        if self._velocity is not None and self.mask:
            self._velocity[where] = 0.0

    def commit(self, v: Tensor, fine: Tensor) -> None:
        """End of the step: v, less what was sent, is the new residual if `fine`, bool []; else the state stays."""
        if self.residual is not None:
            torch.where(fine, v, self.residual, out=self.residual)
        if self.velocity is not None and self._velocity is not None:
            torch.where(fine, self._velocity, self.velocity, out=self.velocity)
        self._velocity = None

    def figures(self) -> dict[str, float]:
        """Norm of the residual."""
        return {} if self.residual is None else {"residual_norm": float(self.residual.norm())}

    def state_dict(self, parts: Sequence[Part]) -> dict[str, dict[str, Tensor]]:
        """State by kind and by parameter: views, which are saved together and without a copy."""
        return {kind: {part.name: part.of(kept) for part in parts} for kind, kept in self._kept().items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]], parts: Sequence[Part]) -> None:
        for kind, kept in self._kept().items():
            for part in parts:
                part.of(kept).copy_(state[kind][part.name])

    def _kept(self) -> dict[str, Tensor]:
        kept = {"residual": self.residual, "velocity": self.velocity}
        return {kind: tensor for kind, tensor in kept.items() if tensor is not None}
