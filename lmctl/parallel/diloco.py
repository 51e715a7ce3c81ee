"""DiLoCo: workers train apart for many steps, then average how far each has come, and take one outer step with it.

With the common weights x, and x_i those of worker i after `every` inner steps from x,

    d = mean over workers of (x - x_i)      the outer gradient, sent as the group `compression` says
    u = m u + d,    x = x - lr (d + m u)    Nesterov momentum

and all workers go on from the new x, each with the states of its own inner optimiser (Douillard et al. 2023, "DiLoCo:
Distributed Low-Communication Training of Language Models", algorithm 1). Compressed with error feedback it is what
SparseLoCo does (Sarfi et al. 2025), but for its momentum, which is here the outer optimiser's, as in DiLoCo.

Losses are divided by the mean number of targets per worker, as everywhere: so with `every` = 1, plain SGD, lr 1 and no
momentum it is gradient averaging. In each step workers tell one another whether a gradient overflowed, and all skip
the step together: 8 bytes to each other worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lmctl.average.base import Average
from lmctl.average.weights import OtherWeights, trainable
from lmctl.compression.base import GradCompressor
from lmctl.compression.coding import raw, read
from lmctl.parallel.processes import Processes
from lmctl.parallel.strategy import Exchanged, Trainable

NETWORK = "network."
"""Where the learner has its network; what else it trains (a learned balance, projections) is not in checkpoints'
weights."""


class DiLoCo(Exchanged):
    """Workers with weights and optimiser states of their own, which an outer step makes equal again."""

    replicates = False

    def __init__(
        self, processes: Processes, compression: GradCompressor, every: int, lr: float, momentum: float
    ) -> None:
        super().__init__(processes, compression, clip_norm=None)
        self.every, self.lr, self.momentum = every, lr, momentum
        self.apart = 0
        """Inner steps since the newest outer step."""
        self._figures: dict[str, float] = {}
        """Of the newest outer step."""
        self._unread: tuple[Tensor, float] | None = None
        """Norm of the outer gradient, float32 [], and the compression ratio, until somebody asks for `figures`."""
        self._step = 0

    def prepare(self, learner: Trainable) -> None:
        super().prepare(learner)
        self.parameters = trainable(learner)
        self.common = {name: p.detach().clone() for name, p in self.parameters.items()}
        """Weights of the newest outer step, the same in all workers."""
        self.outer = torch.optim.SGD(
            list(self.common.values()), lr=self.lr, momentum=self.momentum, nesterov=self.momentum > 0
        )

    @property
    def synchronised(self) -> bool:
        return self.apart == 0

    def reduce_gradients(self, scale: float, step: int) -> None:
        """Gradients stay local, but for this: one that is not finite in any worker is not finite in all of them."""
        self._step, before = step, self.wire.sent
        gradients = [self._gradient(parameter) for parameter in self.parameters.values()]
        norms = torch.stack(torch._foreach_norm(gradients)).float()
        places = torch.arange(len(norms), device=norms.device)
        first = torch.where(torch.isfinite(norms), len(norms), places).amin()
        letter = torch.stack([first.float(), norms.norm() / scale])
        found = read(self.wire.all_gather(raw(letter)), torch.float32)  # [W, 2]
        marks = torch.where(places == found[:, 0].amin(), torch.inf, 0.0)
        torch._foreach_add_([g[(0,) * g.ndim] for g in gradients], marks.unbind())
        self._norm = found[:, 1].sum() / self.workers
        self.sent = self.wire.sent - before

    @staticmethod
    def _gradient(parameter: nn.Parameter) -> Tensor:
        """Its gradient; zero where there is none, as where gradients are averaged."""
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        return parameter.grad

    def clip_grad_norm(self, clip_norm: float | None, waits: bool) -> Tensor:
        """Clip this worker's gradient by its own norm. Returns the mean of the workers' norms, so that all of them come
        to the same decisions."""
        super().clip_grad_norm(clip_norm, waits)
        return self._norm

    @torch.no_grad()
    def after_step(self, taken: bool, last: bool) -> None:
        """The outer step, every `every` steps and after the last one: nothing that was learnt is thrown away."""
        self.apart += taken
        if self.apart == self.every or (last and self.apart):
            self._outer_step()
            self.sent += self.exchange.sent
            self.apart = 0

    def _outer_step(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.grad = self.common[name] - parameter
        self.exchange.reduce(1.0, self._step // self.every)
        for name, parameter in self.parameters.items():
            self.common[name].grad, parameter.grad = parameter.grad, None
        gradients = [x.grad for x in self.common.values() if x.grad is not None]
        ratio = self.apart * self.dense / max(1, self.exchange.sent)
        self._unread = (nn.utils.get_total_norm(gradients), round(ratio, 2))
        self.outer.step()
        self.outer.zero_grad()
        for name, parameter in self.parameters.items():
            parameter.copy_(self.common[name])

    def weights(self, network: nn.Module, average: Average) -> OtherWeights:
        """Those of the newest outer step: what one worker has in between, no other has."""
        own = {name.removeprefix(NETWORK): x for name, x in self.common.items() if name.startswith(NETWORK)}
        return OtherWeights(network, own)

    def _what_is_sent(self) -> list[str]:
        what, *more = super()._what_is_sent() or ["all values in fp32"]
        outer = f"outer SGD with lr {self.lr:g}, Nesterov momentum {self.momentum:g}"
        return [f"differences of the weights, every {self.every} steps: {what}", outer, *more]

    def figures(self) -> dict[str, float]:
        """Of the newest outer step: the exchange's figures, and the norm of the outer gradient."""
        if self._unread is not None:  # reading waits for a GPU
            norm, ratio = self._unread
            self._figures = self.exchange.figures() | {"compression_ratio": ratio, "outer_norm": float(norm)}
            self._unread = None
        return self._figures

    def state_dict(self) -> dict[str, Any]:
        """What is this worker's own, besides its weights and its optimiser's states (`train/own_replica.py`)."""
        return {"exchange": self.exchange.state_dict(), "apart": self.apart, "figures": self.figures()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.exchange.load_state_dict(state["exchange"])
        self.apart, self._figures, self._unread = int(state["apart"]), dict(state["figures"]), None

    def shared_state_dict(self) -> dict[str, Any]:
        """The outer momentum, and the common weights outside of the network."""
        momentum = {name: self.outer.state.get(x, {}).get("momentum_buffer") for name, x in self.common.items()}
        rest = {name: x for name, x in self.common.items() if not name.startswith(NETWORK)}
        return {"momentum": {name: u for name, u in momentum.items() if u is not None}, "rest": rest}

    @torch.no_grad()
    def load_shared_state_dict(self, state: Mapping[str, Any]) -> None:
        momentum, rest = state.get("momentum", {}), state.get("rest", {})
        self.outer.state.clear()
        for name, parameter in self.parameters.items():
            kept = [some[name] for some in (momentum, rest) if name in some]
            if any(value.shape != parameter.shape for value in kept):
                raise ValueError(f"its outer step is not of this network's weights ({name})")
            if name in rest:
                parameter.copy_(rest[name])
            self.common[name].copy_(parameter)
            if name in momentum:
                self.outer.state[self.common[name]]["momentum_buffer"] = momentum[name].to(parameter)
