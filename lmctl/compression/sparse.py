"""Top-k sparse exchange: an all-gather of the indices and values that each worker selected, in one message.

    | int32 count per 65,536 values | low, then high byte of each index | values as the quantiser encodes them |

The top k are selected per tensor, as in Deep Gradient Compression (Lin et al. 2018, algorithm 1), so all messages of a
step have the same length. All workers add the same messages in the same order, so their results are equal to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lmctl.compression.coding import decode_positions, encode_positions, positions_size
from lmctl.compression.error_feedback import ErrorFeedback
from lmctl.compression.gradient_layout import Part, cut, size
from lmctl.compression.quantise import Quantiser
from lmctl.compression.top_k import survivors
from lmctl.compression.wire import Wire


class Pruned:
    """Top-k sparsification and quantisation, with error feedback."""

    def __init__(
        self,
        parts: list[Part],
        wire: Wire,
        density: Callable[[int], float],
        sampled: bool,
        quantise: Quantiser,
        memory: ErrorFeedback,
    ) -> None:
        """`density`: the share of the values that is sent, as a function of the step."""
        self.parts, self.wire = parts, wire
        self.density, self.sampled, self.quantise = density, sampled, quantise
        self.memory, self.pieces = memory, cut(parts)

    def mean(self, gradient: Tensor, fine: Tensor, step: int) -> Tensor:
        """Mean of the workers' sparse gradients, float32 [n], from `gradient`, float32 [n], which is overwritten. The
        residual changes only if `fine`, bool []."""
        v = self.memory.compensate(gradient)
        mean = torch.zeros_like(v)
        for piece in self.pieces:
            self._send(piece, v, mean, self.density(step))
        self.memory.commit(v, fine)
        return mean

    def _send(self, piece: list[Part], v: Tensor, mean: Tensor, density: float) -> None:
        first, n = piece[0].start, size(piece)
        counts = [math.ceil(density * (part.stop - part.start)) for part in piece]
        k, head = sum(counts), positions_size(n, sum(counts))
        chosen = [
            survivors(part.of(v), count, self.sampled) + part.start for part, count in zip(piece, counts, strict=True)
        ]
        positions = torch.cat(chosen)
        body = self.quantise.encode(v[positions].unsqueeze(0))
        self.memory.subtract(v, positions, self.quantise.decode(body, k)[0])
        for message in self.wire.all_gather(torch.cat([encode_positions(positions - first, n), body[0]])):
            arrived = self.quantise.decode(message[head:].unsqueeze(0), k)[0]
            mean.index_add_(0, decode_positions(message[:head], n, k) + first, arrived / self.wire.world)

    def figures(self, step: int) -> dict[str, float]:
        """Density of the step, and the norm of the residual."""
        return {"density": self.density(step)} | self.memory.figures()

    def state_dict(self) -> dict[str, Any]:
        return {"memory": self.memory.state_dict(self.parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memory.load_state_dict(state["memory"], self.parts)
