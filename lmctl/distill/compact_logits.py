"""Top-k compression of a teacher's logits: the k most likely tokens per target, and the probability of the rest.

Stored per target: k token ids (2 bytes each if the vocabulary allows, else 4), k log-probabilities in half precision
and the log-probability of the rest in single precision: 4 k + 4 or 6 k + 4 bytes. With k = 50 and a vocabulary of at
most 65,536 that is 204 bytes; DistillKit's README gives about 300. When expanded, the rest is spread evenly over all
other tokens, so that divergences and temperatures work on a full distribution. With k of at least V the logits
themselves are stored in single precision, and restored to the bit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class LogitLayout(NamedTuple):
    """Storage layout of the logits of one term."""

    pieces: int
    """V: vocabulary size (or number of classes) of the teacher."""
    k: int
    """Number of tokens stored per target; V: all."""

    @property
    def whole(self) -> bool:
        """Whether all logits are stored."""
        return self.k >= self.pieces

    @property
    def columns(self) -> dict[str, tuple[np.dtype, int]]:
        """dtype and number of values per target, by column name."""
        if self.whole:
            return {"logits": (np.dtype(np.float32), self.pieces)}
        number = np.dtype(np.uint16 if self.pieces <= 1 << 16 else np.uint32)
        return {"pieces": (number, self.k), "nats": (np.dtype(np.float16), self.k), "rest": (np.dtype(np.float32), 1)}

    @property
    def bytes_per_target(self) -> int:
        return sum(dtype.itemsize * count for dtype, count in self.columns.values())


def layout(pieces: int, k: int | None) -> LogitLayout:
    """The layout for V = `pieces` and at most `k` tokens per target; None: all."""
    return LogitLayout(pieces, pieces if k is None else min(k, pieces))


def compact(logits: Tensor, how: LogitLayout) -> dict[str, np.ndarray]:
    """Compress logits [N, V] to the columns of `how`."""
    if how.whole:
        return {"logits": logits.float().cpu().numpy()}
    nats = logits.float().log_softmax(-1)
    top, pieces = nats.topk(how.k, dim=-1)
    # Not 1 - sum(top): if the top k have nearly all the probability, the difference would be rounding error.
    rest = nats.scatter(-1, pieces, -torch.inf).logsumexp(-1, keepdim=True)
    kinds = how.columns
    values = {"pieces": pieces, "nats": top, "rest": rest}
    return {name: value.cpu().numpy().astype(kinds[name][0]) for name, value in values.items()}


def expand(columns: dict[str, Tensor], how: LogitLayout) -> Tensor:
    """Expand the columns of `how`, [N, ...] each, to float32 [N, V]: logits if all were stored, else
    log-probabilities."""
    if how.whole:
        return columns["logits"]
    share = columns["rest"].float() - math.log(how.pieces - how.k)
    whole = share.expand(-1, how.pieces).contiguous()
    return whole.scatter_(-1, columns["pieces"].long(), columns["nats"].float())
