"""Few values: every worker sends positions and values of its own survivors to all, in one message.

    | int32 count per 65,536 values | low, then high byte of each position | values as the quantiser writes them |

Survivors are counted per tensor, as in Deep Gradient Compression (Lin et al. 2018, algorithm 1), so every message of a
step has the same length. All workers add up the same messages in the same order, and so stay equal to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lmctl.compression.base import Wire
from lmctl.compression.coding import decode_positions, encode_positions, positions_size
from lmctl.compression.layout import Part, cut, size
from lmctl.compression.memory import Memory
from lmctl.compression.quantise import Quantiser
from lmctl.compression.select import survivors


class Pruned:
    """Prune, quantise, remember the rest. Lists have an entry for each of this process's workers."""

    def __init__(
        self,
        parts: list[Part],
        wire: Wire,
        density: Callable[[int], float],
        sampled: bool,
        quantise: Quantiser,
        memories: list[Memory],
    ) -> None:
        """`density`: the share of the values that is sent, by step."""
        self.parts, self.wire = parts, wire
        self.density, self.sampled, self.quantise = density, sampled, quantise
        self.memories, self.pieces = memories, cut(parts)

    def mean(self, gradients: list[Tensor], fine: Tensor, step: int) -> Tensor:
        """The mean of the workers' gradients, L x float32 [n], as it arrives: float32 [n]. Memories change if `fine`,
        bool []. The gradients are used up."""
        values = [memory.add(gradient) for memory, gradient in zip(self.memories, gradients, strict=True)]
        mean = torch.zeros_like(values[0])
        for piece in self.pieces:
            self._send(piece, values, mean, self.density(step))
        for memory, v in zip(self.memories, values, strict=True):
            memory.keep(v, fine)
        return mean

    def _send(self, piece: list[Part], values: list[Tensor], mean: Tensor, density: float) -> None:
        first, n = piece[0].start, size(piece)
        counts = [math.ceil(density * (part.stop - part.start)) for part in piece]
        k = sum(counts)
        messages = []
        for memory, v in zip(self.memories, values, strict=True):
            chosen = [
                survivors(part.of(v), count, self.sampled) + part.start
                for part, count in zip(piece, counts, strict=True)
            ]
            positions = torch.cat(chosen)
            body = self.quantise.encode(v[positions].unsqueeze(0))
            memory.sent(v, positions, self.quantise.decode(body, k)[0])
            messages.append(torch.cat([encode_positions(positions - first, n), body[0]]))
        head = positions_size(n, k)
        for message in self.wire.gather(messages):
            arrived = self.quantise.decode(message[head:].unsqueeze(0), k)[0]
            mean.index_add_(0, decode_positions(message[:head], n, k) + first, arrived / self.wire.world)

    def figures(self, step: int) -> dict[str, float]:
        """Density of the step, and the norm of what the first of this process's workers has not sent."""
        return {"density": self.density(step)} | self.memories[0].figures()

    def state_dict(self) -> dict[str, Any]:
        return {"workers": [memory.state_dict(self.parts) for memory in self.memories]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for memory, saved in zip(self.memories, state["workers"], strict=True):
            memory.load_state_dict(saved, self.parts)
