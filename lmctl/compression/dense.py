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

from lmctl.compression.base import Wire
from lmctl.compression.layout import Part, cut, size
from lmctl.compression.memory import Memory
from lmctl.compression.quantise import Quantiser


class Dense:
    """Quantise, remember the rest. Lists have an entry for each of this process's workers."""

    def __init__(self, parts: list[Part], wire: Wire, quantise: Quantiser, memories: list[Memory]) -> None:
        self.parts, self.wire, self.quantise, self.memories = parts, wire, quantise, memories
        self.pieces = cut(parts)
        self.shares = [-(-size(piece) // wire.world) for piece in self.pieces]
        """Values of each piece that a worker averages."""
        device = parts[0].parameter.device
        feedback = any(memory.residual is not None for memory in memories)
        self.owed = [[torch.zeros(n, device=device) for n in self.shares if feedback] for _ in memories]
        """What rounding took from the means that each worker made, per piece."""

    def mean(self, gradients: list[Tensor], fine: Tensor, step: int) -> Tensor:
        """As `Pruned.mean`."""
        values = [memory.add(gradient) for memory, gradient in zip(self.memories, gradients, strict=True)]
        mean = torch.empty_like(values[0])
        for number, piece in enumerate(self.pieces):
            here = slice(piece[0].start, piece[-1].stop)
            mean[here] = self._average(number, [v[here] for v in values], fine)
        for memory, v in zip(self.memories, values, strict=True):
            memory.keep(v, fine)
        return mean

    def _average(self, number: int, values: list[Tensor], fine: Tensor) -> Tensor:
        """One piece of all vectors, L x [n]; what is sent is taken out of them."""
        n, share, world = len(values[0]), self.shares[number], self.wire.world
        bodies = [self.quantise.encode(F.pad(v, (0, world * share - n)).view(world, share)) for v in values]
        for memory, v, body in zip(self.memories, values, bodies, strict=True):
            memory.sent(v, slice(None), self.quantise.decode(body, share).flatten()[:n])
        averaged = []
        for owed, received in zip(self.owed, self.wire.scatter(bodies), strict=True):
            part = self.quantise.decode(received, share).mean(dim=0, keepdim=True)
            if owed:
                part += owed[number]
            averaged.append(self.quantise.encode(part)[0])
            if owed:
                part -= self.quantise.decode(averaged[-1].unsqueeze(0), share)
                torch.where(fine, part[0], owed[number], out=owed[number])
        return self.quantise.decode(self.wire.rejoin(averaged), share).flatten()[:n]

    def figures(self, step: int) -> dict[str, float]:
        """The norm of what the first of this process's workers has not sent."""
        return {"density": 1.0} | self.memories[0].figures()

    def state_dict(self) -> dict[str, Any]:
        return {"workers": [memory.state_dict(self.parts) for memory in self.memories], "owed": self.owed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for memory, saved in zip(self.memories, state["workers"], strict=True):
            memory.load_state_dict(saved, self.parts)
        for tensors, saved in zip(self.owed, state["owed"], strict=True):
            for tensor, value in zip(tensors, saved, strict=True):
                tensor.copy_(value)
