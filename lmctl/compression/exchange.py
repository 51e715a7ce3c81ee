"""The exchange of one step's gradients, whatever the method: after the last backward pass, once, over all of them.

DDP would hand out its buckets while the backward pass runs, which hides the network behind computation. But it rebuilds
its buckets after the first step, so that what a compressor keeps for one would belong to another; methods that talk
twice (PowerSGD, an average that is scattered and rejoined) would have to chain collectives in its callbacks, which gloo
does not stand; and a step that fp16 skips is only known to be skipped when the last bucket is there. So the learner is
not wrapped, and everything happens here, in the order of the parameters' names.

First, with the small tensors that are sent whole, goes a flag for every tensor that is not finite: so all workers know
before anything is remembered, and skip together.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from lmctl.compression.base import Exchange
from lmctl.compression.gradient_layout import Layout, size
from lmctl.compression.traffic import all_reduce_bytes
from lmctl.compression.wire import Wire


class Method(Protocol):
    """A way to average vectors over the network."""

    def mean(self, gradient: Tensor, fine: Tensor, step: int) -> Tensor:
        """The mean over all workers, as it arrives, float32 [n]; `gradient`, float32 [n], is used up. What is
        remembered changes only if `fine`, bool []."""
        ...

    def figures(self, step: int) -> dict[str, float]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class CompressedExchange(Exchange):
    """Gradients are averaged by `method`, small ones as they are."""

    def __init__(
        self,
        layout: Layout,
        wire: Wire,
        method: Method,
        what: str,
        clip: float | None = None,
        momentum: float = 0.0,
        probe_every: int | None = None,
    ) -> None:
        """`what`: the method in words. `clip`: the norm that each worker's own gradient is scaled down to before.
        `momentum`: that of tensors sent whole, where the method has taken it over from the optimiser."""
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
        looks = self.probe_every is not None and step % self.probe_every == 0
        true = self.wire.total(torch.cat([compressed, whole]), count=False) if looks else None
        norms = self._norms(compressed, whole)
        self._clip(compressed, whole, norms)
        first = self.wire.total(torch.cat([whole, (~torch.isfinite(norms)).float()]))
        m = size(self.layout.whole)
        whole, flags = first[:m] / self.wire.world, first[m:]
        fine = ~flags.any()
        mean = self.method.mean(compressed, fine, step).masked_fill_(~fine, 0.0)
        if true is not None:
            self._look(true, torch.cat([mean, whole]))
        self._mark(mean, whole := self._with_momentum(whole, fine), flags)
        self.layout.unflatten(mean, whole, scale)
        self.sent = self.wire.sent - before

    def _norms(self, compressed: Tensor, whole: Tensor) -> Tensor:
        """The norm of each tensor of one worker's gradient: float32 [tensors]."""
        layout = self.layout
        tensors = [p.of(compressed) for p in layout.compressed] + [p.of(whole) for p in layout.whole]
        return torch.stack(torch._foreach_norm(tensors))

    def _clip(self, compressed: Tensor, whole: Tensor, norms: Tensor) -> None:
        """Scale one worker's gradient down to the local norm, in place."""
        if self.clip is not None:
            factor = (self.clip / (norms.norm() + 1e-6)).clamp(max=1.0).nan_to_num(1.0)
            compressed.mul_(factor)
            whole.mul_(factor)

    def _mark(self, compressed: Tensor, whole: Tensor, flags: Tensor) -> None:
        """Make one value of every flagged tensor infinite, so that whoever looks at gradients sees which."""
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

    def _look(self, true: Tensor, arrived: Tensor) -> None:
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
        """Also the newest look, so that the record of a resumed run has it too."""
        velocity = {part.name: part.of(self.velocity) for part in self.layout.whole if self.momentum}
        return {"method": self.method.state_dict(), "cosine": self._cosine, "velocity": velocity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state["method"])
        self._cosine = state["cosine"]
        for part in self.layout.whole if self.momentum else ():
            part.of(self.velocity).copy_(state["velocity"][part.name])
