"""What a worker remembers of gradients it has not sent: error feedback, and momentum correction on top of it.

Error feedback (Seide et al. 2014; Karimireddy et al. 2019): with g the gradient and e the residual, v = e + g is
compressed, and e becomes v minus what was sent; nothing is lost, only late.

Momentum correction (Lin et al. 2018, Deep Gradient Compression, section 3.2 and algorithm 4): momentum is applied
before, not after, so that late gradients arrive as if momentum had accompanied them,

    u = m u + g,    v = e + u,

and momentum factor masking sets u to 0 wherever something was sent, which stops stale momentum. Tensors that are sent
whole have momentum too, after they were averaged (`exchange.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lmctl.compression.gradient_layout import Part


class ErrorFeedback:
    """Residual and velocity of one worker, float32 [n] each, where they are wanted."""

    def __init__(self, n: int, device: torch.device, feedback: bool, momentum: float, mask: bool) -> None:
        self.momentum, self.mask = momentum, mask
        self.residual = torch.zeros(n, device=device) if feedback else None
        self.velocity = torch.zeros(n, device=device) if momentum else None
        self._velocity: Tensor | None = None
        """The velocity of the step that is under way."""

    def compensate(self, gradient: Tensor) -> Tensor:
        """v float32 [n], to be compressed; what is remembered stays as it is. `gradient` [n] is used up."""
        if self.residual is None:
            return gradient
        if self.velocity is None:
            return gradient.add_(self.residual)
        self._velocity = gradient.add_(self.velocity, alpha=self.momentum)
        return self._velocity + self.residual

    def subtract(self, v: Tensor, where: Tensor | slice, values: Tensor) -> None:
        """The places `where` of v (each once) have gone out as `values`."""
        if self.residual is not None:
            v[where] -= values
        if self._velocity is not None and self.mask:
            self._velocity[where] = 0.0

    def commit(self, v: Tensor, fine: Tensor) -> None:
        """The step is over: v, less what was sent, is the new residual, if bool [] `fine`; else nothing happened."""
        if self.residual is not None:
            torch.where(fine, v, self.residual, out=self.residual)
        if self.velocity is not None and self._velocity is not None:
            torch.where(fine, self._velocity, self.velocity, out=self.velocity)
        self._velocity = None

    def figures(self) -> dict[str, float]:
        """The size of what was not sent."""
        return {} if self.residual is None else {"residual_norm": float(self.residual.norm())}

    def state_dict(self, parts: Sequence[Part]) -> dict[str, dict[str, Tensor]]:
        """What is kept, by kind and by parameter: views, which are saved together and without a copy."""
        return {kind: {part.name: part.of(kept) for part in parts} for kind, kept in self._kept().items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]], parts: Sequence[Part]) -> None:
        for kind, kept in self._kept().items():
            for part in parts:
                part.of(kept).copy_(state[kind][part.name])

    def _kept(self) -> dict[str, Tensor]:
        kept = {"residual": self.residual, "velocity": self.velocity}
        return {kind: tensor for kind, tensor in kept.items() if tensor is not None}
