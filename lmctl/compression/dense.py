"""All values, in few bits: worker w receives everybody's part w, averages it, and sends the mean to all.

The mean is rounded once more, and what that rounding took is added to the next mean (double error feedback: Tang et al.
2019, DoubleSqueeze; as in 1-bit Adam and ZeRO++). If everybody's gradient went to everybody instead, a worker would
send its own W - 1 times, and int8 would be no smaller than a ring of fp32 from 8 workers on; this way it sends it less
than twice, whatever W. With two workers the bytes are the same either way, and they go this way too: one arithmetic for
any number of workers. Unlike a sum inside the network in half precision, the sum is made in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmctl.compression.error_feedback import ErrorFeedback
from lmctl.compression.gradient_layout import Part, cut, size
from lmctl.compression.quantise import Quantiser
from lmctl.compression.wire import Wire


class Dense:
    """Quantise, remember the rest."""

    def __init__(self, parts: list[Part], wire: Wire, quantise: Quantiser, memory: ErrorFeedback) -> None:
        self.parts, self.wire, self.quantise, self.memory = parts, wire, quantise, memory
        self.pieces = cut(parts)
        self.shares = [-(-size(piece) // wire.world) for piece in self.pieces]
        """Values of each piece that a worker averages."""
        feedback = memory.residual is not None
        self.owed = [torch.zeros(n, device=parts[0].parameter.device) for n in self.shares if feedback]
        """What rounding took from the means that this worker made, per piece."""

    def mean(self, gradient: Tensor, fine: Tensor, step: int) -> Tensor:
        """As `Pruned.mean`."""
        v = self.memory.compensate(gradient)
        mean = torch.empty_like(v)
        for number, piece in enumerate(self.pieces):
            here = slice(piece[0].start, piece[-1].stop)
            mean[here] = self._average(number, v[here], fine)
        self.memory.commit(v, fine)
        return mean

    def _average(self, number: int, v: Tensor, fine: Tensor) -> Tensor:
        """One piece of the vector, [n]; what is sent is taken out of it."""
        n, share, world = len(v), self.shares[number], self.wire.world
        body = self.quantise.encode(F.pad(v, (0, world * share - n)).view(world, share))
        self.memory.subtract(v, slice(None), self.quantise.decode(body, share).flatten()[:n])
        part = self.quantise.decode(self.wire.scatter(body), share).mean(dim=0, keepdim=True)
        if self.owed:
            part += self.owed[number]
        averaged = self.quantise.encode(part)[0]
        if self.owed:
            part -= self.quantise.decode(averaged.unsqueeze(0), share)
            torch.where(fine, part[0], self.owed[number], out=self.owed[number])
        return self.quantise.decode(self.wire.rejoin(averaged), share).flatten()[:n]

    def figures(self, step: int) -> dict[str, float]:
        """The norm of what was not sent."""
        return {"density": 1.0} | self.memory.figures()

    def state_dict(self) -> dict[str, Any]:
        return {"memory": self.memory.state_dict(self.parts), "owed": self.owed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memory.load_state_dict(state["memory"], self.parts)
        for tensor, value in zip(self.owed, state["owed"], strict=True):
            tensor.copy_(value)
