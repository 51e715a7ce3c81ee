"""A teacher's logits in little room: the k likeliest pieces of each target, and how much probability is left over.

Per target k numbers of pieces (2 bytes each where the vocabulary allows, else 4), k log-probabilities in half precision
and the logarithm of what is left, in single: 4 k + 4 or 6 k + 4 bytes. With k = 50 and a vocabulary of at most 65,536
that is 204 bytes; DistillKit's README gives about 300. What is left over comes back as if all other pieces shared it
evenly, so that every divergence and every temperature finds a whole distribution. With k of at least V the logits
themselves are kept, in single precision, and come back to the bit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Layout(NamedTuple):
    """How the answers to one term are kept."""

    pieces: int
    """V: pieces (or classes) that the teacher chooses from."""
    k: int
    """Of them kept; V: all."""

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        return self.k >= self.pieces

    @property
    def columns(self) -> dict[str, tuple[np.dtype, int]]:
        """By name of a column its dtype and how many numbers it has per target."""
        if self.whole:
            return {"logits": (np.dtype(np.float32), self.pieces)}
        number = np.dtype(np.uint16 if self.pieces <= 1 << 16 else np.uint32)
        return {"pieces": (number, self.k), "nats": (np.dtype(np.float16), self.k), "rest": (np.dtype(np.float32), 1)}

    @property
    def bytes_per_target(self) -> int:
        return sum(dtype.itemsize * count for dtype, count in self.columns.values())


def layout(pieces: int, k: int | None) -> Layout:
    """For V = `pieces` and at most `k` of them; None: all."""
    return Layout(pieces, pieces if k is None else min(k, pieces))


def compact(logits: Tensor, how: Layout) -> dict[str, np.ndarray]:
    """Logits [N, V] as the columns of `how`."""
    if how.whole:
        return {"logits": logits.float().cpu().numpy()}
    nats = logits.float().log_softmax(-1)
    top, pieces = nats.topk(how.k, dim=-1)
    # Not 1 - sum(top): where nearly all is in the top, the difference would be rounding.
    rest = nats.scatter(-1, pieces, -torch.inf).logsumexp(-1, keepdim=True)
    kinds = how.columns
    values = {"pieces": pieces, "nats": top, "rest": rest}
    return {name: value.cpu().numpy().astype(kinds[name][0]) for name, value in values.items()}


def expand(columns: dict[str, Tensor], how: Layout) -> Tensor:
    """Logits float32 [N, V] from the columns of `how`, [N, ...] each: log-probabilities if they were cut short."""
    if how.whole:
        return columns["logits"]
    share = columns["rest"].float() - math.log(how.pieces - how.k)
    whole = share.expand(-1, how.pieces).contiguous()
    return whole.scatter_(-1, columns["pieces"].long(), columns["nats"].float())
