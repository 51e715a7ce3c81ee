"""Compressed gradient exchange of one step, for any method: once, after the last backward pass, over all gradients.

Not a DDP communication hook, although DDP overlaps communication with the backward pass. DDP rebuilds its buckets after
the first step, so that the residual of one bucket would be used for another; methods with two rounds (PowerSGD,
reduce-scatter and all-gather) would have to chain collectives in its callbacks, which gloo does not support; and a step
that fp16 skips is known to be skipped only with the last bucket. So the learner is not wrapped, and the exchange runs
here, in the order of the parameters' names.

The first message holds the small tensors that are sent uncompressed, and one flag for every tensor that is not finite.
So all workers know of an overflow before any state changes, and skip the step together.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from lmctl.compression.base import Exchange
from lmctl.compression.gradient_layout import GradientLayout, size
from lmctl.compression.traffic import all_reduce_bytes
from lmctl.compression.wire import Wire


class Method(Protocol):
    """A compressed mean over workers."""

    def mean(self, gradient: Tensor, fine: Tensor, step: int) -> Tensor:
        """Approximate mean of `gradient`, float32 [n], over all workers: float32 [n]. `gradient` is overwritten. The
        residual changes only if `fine`, bool []."""
        ...

    def figures(self, step: int) -> dict[str, float]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class CompressedExchange(Exchange):
    """Gradients are averaged by `method`; small tensors are sent uncompressed."""

    def __init__(
        self,
        layout: GradientLayout,
        wire: Wire,
        method: Method,
        what: str,
        clip: float | None = None,
        momentum: float = 0.0,
        probe_every: int | None = None,
    ) -> None:
        """`what`: the method in words. `clip`: norm to which each worker's own gradient is clipped before compression.
        `momentum`: that of uncompressed tensors, where the method replaces the optimiser's momentum."""
        self.layout, self.wire, self.method, self.what = layout, wire, method, what
        self.clip, self.momentum, self.probe_every = clip, momentum, probe_every
        self.velocity = torch.zeros(size(layout.whole) if momentum else 0, device=layout.device)
        self.sent, self.dense = 0, all_reduce_bytes(4 * sum(map(size, (layout.compressed, layout.whole))), wire.world)
        self._starts = torch.tensor([part.start for part in layout.parts], device=layout.device)
        self._step = 0
        self._cosine: Tensor | None = None

    def reduce(self, scale: float, step: int) -> None:
        (compressed, whole), self._step = self.layout.flatten(scale), step
        before = self.wire.sent
        probes = self.probe_every is not None and step % self.probe_every == 0
        true = self.wire.all_reduce(torch.cat([compressed, whole]), count=False) if probes else None
        norms = self._norms(compressed, whole)
        self._clip(compressed, whole, norms)
        first = self.wire.all_reduce(torch.cat([whole, (~torch.isfinite(norms)).float()]))
        m = size(self.layout.whole)
        whole, flags = first[:m] / self.wire.world, first[m:]
        fine = ~flags.any()
        mean = self.method.mean(compressed, fine, step).masked_fill_(~fine, 0.0)
        if true is not None:
            self._measure_cosine(true, torch.cat([mean, whole]))
        self._mark_overflow(mean, whole := self._with_momentum(whole, fine), flags)
        self.layout.unflatten(mean, whole, scale)
        self.sent = self.wire.sent - before

    def _norms(self, compressed: Tensor, whole: Tensor) -> Tensor:
        """Gradient norm of each tensor of this worker: float32 [tensors]."""
        layout = self.layout
        tensors = [p.of(compressed) for p in layout.compressed] + [p.of(whole) for p in layout.whole]
        return torch.stack(torch._foreach_norm(tensors))

    def _clip(self, compressed: Tensor, whole: Tensor, norms: Tensor) -> None:
        """Local gradient clipping, in place."""
        if self.clip is not None:
            factor = (self.clip / (norms.norm() + 1e-6)).clamp(max=1.0).nan_to_num(1.0)
            compressed.mul_(factor)
            whole.mul_(factor)

    def _mark_overflow(self, compressed: Tensor, whole: Tensor, flags: Tensor) -> None:
        """Set one value of every flagged tensor to infinity, so that loss scaling and messages find the tensor."""
        infinite = torch.where(flags > 0, torch.inf, 0.0)
        split = len(self.layout.compressed)
        compressed.index_add_(0, self._starts[:split], infinite[:split])
        whole.index_add_(0, self._starts[split:], infinite[split:])

    def _with_momentum(self, whole: Tensor, fine: Tensor) -> Tensor:
        if not self.momentum:
            return whole
        velocity = whole.add_(self.velocity, alpha=self.momentum)
        torch.where(fine, velocity, self.velocity, out=self.velocity)
        return velocity

    def _measure_cosine(self, true: Tensor, arrived: Tensor) -> None:
        cosine = torch.nn.functional.cosine_similarity(true, arrived, dim=0)
        before = cosine.new_tensor(torch.nan) if self._cosine is None else self._cosine.to(cosine.device)
        self._cosine = torch.where(torch.isfinite(cosine), cosine, before)

    def describe(self) -> list[str]:
        layout = self.layout
        matrices = f"{len(layout.compressed)} matrices of {size(layout.compressed):,} values"
        return [f"{matrices}: {self.what}; {len(layout.whole)} tensors of {size(layout.whole):,} values: whole"]

    def figures(self) -> dict[str, float]:
        figures = {"compression_ratio": round(self.dense / max(1, self.sent), 2), **self.method.figures(self._step)}
        if self._cosine is not None and bool(torch.isfinite(self._cosine)):
            figures["gradient_cosine"] = float(self._cosine)
        return figures

    def state_dict(self) -> dict[str, Any]:
        """Includes the last probe, so that the metrics of a resumed run have it too."""
        velocity = {part.name: part.of(self.velocity) for part in self.layout.whole if self.momentum}
        return {"method": self.method.state_dict(), "cosine": self._cosine, "velocity": velocity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state["method"])
        self._cosine = state["cosine"]
        for part in self.layout.whole if self.momentum else ():
            part.of(self.velocity).copy_(state["velocity"][part.name])
