"""What a process of a sharded run has of a step that was rehearsed with whole weights.

Its shards, and on top what is gathered at the same time: the root's group, of two layers the weights (that which
computes and the next one) and the buffer that one of them arrives in, and whole gradients of the root and of one layer
with the buffer that they leave in. Holes in the heap are those of the rehearsed step.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from lmctl.compression.base import GradCompressor
from lmctl.core.collectives import BACKWARD, BOTH, Collective, hops
from lmctl.cost.memory_tracker import GRADIENTS, STATES, WEIGHTS, Peak
from lmctl.parallel.fsdp import PassBytes
from lmctl.parallel.strategy import Single, Trainable

SHARDED = frozenset({WEIGHTS, GRADIENTS, STATES})


class FakeFsdp(Single):
    """Sharded weights, of which the rehearsal has all."""

    def __init__(self, processes: Any, shards: int, passes: int, compression: GradCompressor, offload: bool) -> None:
        """`passes`: forward and backward passes of a process per step. `offload`: shards are in host memory."""
        super().__init__(processes)
        self.shards, self.passes, self.compression, self.offload = shards, passes, compression, offload

    def prepare(self, learner: Trainable) -> None:
        super().prepare(learner)
        self.bytes = PassBytes.of(learner, self.shards, self.workers // self.shards, self.compression)
        self.residual = torch.zeros(self.bytes.residual // 4, device=learner.device)
        self.sent, self.dense = self.passes * self.bytes.sent, self.passes * self.bytes.dense

    def state_dict(self) -> dict[str, Any]:
        return {"residuals": self.residual}

    @property
    def every_pass(self) -> bool:
        return True

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext()

    def of_shards(self, peak: Peak) -> Peak:
        """The peak of a process that has its shards only."""
        by = self.kinds(peak.by)
        more = sum(by.values()) - sum(peak.by.values())
        return replace(peak, by=by, total=peak.total + more, resting=peak.resting + more)

    def kinds(self, by: Mapping[str, int]) -> dict[str, int]:
        """Bytes by kind of such a process."""
        found = dict(by)
        for kind in SHARDED & by.keys():
            found[kind] = 0 if self.offload else by[kind] // self.shards
        if WEIGHTS in found:
            found[WEIGHTS] += self.bytes.root + 3 * self.bytes.largest
        if by.get(GRADIENTS):
            found[GRADIENTS] += self.bytes.root_gradients + 2 * self.bytes.largest_gradients
        return found

    def host(self, most: Mapping[str, int]) -> int:
        """Bytes of host memory with the shards."""
        return sum(most.get(kind, 0) for kind in SHARDED) // self.shards if self.offload else 0

    def collectives(self) -> tuple[Collective, ...]:
        """The operations of a step."""
        groups, turns = self.passes * (self.bytes.layers + 1), hops(self.shards)
        found = (
            Collective("all-gather", "weights", self.passes * self.bytes.gathers, 2 * groups * turns, BOTH),
            Collective("reduce-scatter", "gradients", self.passes * self.bytes.scatters, groups * turns, BACKWARD),
        )
        replicas = self.workers // self.shards
        if replicas == 1:
            return found
        between = self.passes * self.bytes.reduces, 2 * groups * hops(replicas)
        return (*found, Collective("all-reduce", "gradients between replicas", *between, BACKWARD))
