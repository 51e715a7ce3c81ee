"""Quantised all-reduce: reduce-scatter, then all-gather; worker w averages part w of all gradients and sends the mean.

The mean is quantised once more, and the error of that is added to the next mean (double error feedback: Tang et al.
2019, DoubleSqueeze; as in 1-bit Adam and ZeRO++). With a plain all-gather of all gradients a worker would send its own
W - 1 times, and int8 would be no smaller than a ring all-reduce in fp32 from 8 workers on; here it sends it less than
twice, for any W. With two workers the bytes are equal, and the same method is used: one arithmetic for any number of
workers. Unlike an all-reduce in half precision, the sum is computed in float32.
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
    """Dense quantisation with error feedback, for all values of the vector."""

    def __init__(self, parts: list[Part], wire: Wire, quantise: Quantiser, memory: ErrorFeedback) -> None:
        self.parts, self.wire, self.quantise, self.memory = parts, wire, quantise, memory
        self.pieces = cut(parts)
        self.shares = [-(-size(piece) // wire.world) for piece in self.pieces]
        """Number of values of each piece that one worker averages."""
        feedback = memory.residual is not None
        self.owed = [torch.zeros(n, device=parts[0].parameter.device) for n in self.shares if feedback]
        """Residual of the second quantisation: its error in the means of this worker, per piece."""

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
        """Average one piece [n]; what is sent is subtracted from it, in place."""
        n, share, world = len(v), self.shares[number], self.wire.world
        body = self.quantise.encode(F.pad(v, (0, world * share - n)).view(world, share))
        self.memory.subtract(v, slice(None), self.quantise.decode(body, share).flatten()[:n])
        part = self.quantise.decode(self.wire.all_to_all(body), share).mean(dim=0, keepdim=True)
        if self.owed:
            part += self.owed[number]
        averaged = self.quantise.encode(part)[0]
        if self.owed:
            part -= self.quantise.decode(averaged.unsqueeze(0), share)
            torch.where(fine, part[0], self.owed[number], out=self.owed[number])
        return self.quantise.decode(self.wire.all_gather_parts(averaged), share).flatten()[:n]

    def figures(self, step: int) -> dict[str, float]:
        """Norm of the residual."""
        return {"density": 1.0} | self.memory.figures()

    def state_dict(self) -> dict[str, Any]:
        return {"memory": self.memory.state_dict(self.parts), "owed": self.owed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memory.load_state_dict(state["memory"], self.parts)
        for tensor, value in zip(self.owed, state["owed"], strict=True):
            tensor.copy_(value)
