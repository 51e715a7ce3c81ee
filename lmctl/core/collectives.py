"""Collective operations of a step as a cost: bytes, messages, and seconds over links of a given bandwidth and latency.

Bytes are those that one process sends in a ring, which NCCL and gloo use for large messages; the latency is that of a
tree, which they use for small ones. With n processes and S bytes each:

    all-reduce        2 S (n - 1) / n    2 log2(n) hops      (a reduce-scatter and an all-gather)
    reduce-scatter      S (n - 1) / n      log2(n) hops
    all-gather          S (n - 1) / n      log2(n) hops      (S: the gathered whole)

Thakur et al. 2005, "Optimization of Collective Communication Operations in MPICH".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

BUCKET = 25 * 2**20
"""Bytes of a bucket of torch's DDP, which is sent as soon as its gradients are there."""


@dataclass(frozen=True)
class Link:
    """What connects two processes, at the slowest place."""

    bandwidth: float
    """Bytes per second and process, in each direction."""
    latency: float
    """Seconds per message."""


@dataclass(frozen=True)
class Collective:
    """One kind of collective operation of a step."""

    name: str
    """all-reduce, reduce-scatter or all-gather."""
    of: str
    """What is sent, for people."""
    bytes: int
    """What one process sends for it per step, on average."""
    messages: float
    """How many messages are waited for, one after the other, per step."""
    behind: str | None
    """The computation that it can hide behind; None: nothing."""

    def seconds(self, link: Link) -> float:
        """Per step, hidden or not."""
        return self.bytes / link.bandwidth + self.messages * link.latency


BACKWARD, BOTH = "the backward pass", "the forward and backward passes"


def hops(processes: int) -> int:
    """Messages from one process to all others in a tree."""
    return math.ceil(math.log2(processes)) if processes > 1 else 0


def share(size: float, processes: int) -> int:
    """Bytes that a process sends in a reduce-scatter or an all-gather of `size` bytes."""
    return round(size * (processes - 1) / processes)


def ddp(gradients: float, processes: int) -> tuple[Collective, ...]:
    """DistributedDataParallel: an all-reduce of `gradients` bytes in buckets, during the backward pass."""
    buckets = max(1, math.ceil(gradients / BUCKET))
    sent, messages = 2 * share(gradients, processes), 2 * hops(processes) * buckets
    return (Collective("all-reduce", "gradients", sent, messages, BACKWARD),)


def fsdp(
    weights: float, gradients: float, layers: int, shards: int, replicas: int = 1, micro: int = 1
) -> tuple[Collective, ...]:
    """FSDP: `shards` processes share the weights; each layer is gathered before its forward and its backward pass, its
    gradients are scattered after it; `replicas` of the whole (HSDP) average the shards. `weights` and `gradients`:
    bytes of the whole as they are sent; `micro`: micro-batches of a step."""
    gathered = Collective(
        "all-gather", "weights", 2 * micro * share(weights, shards), 2 * micro * layers * hops(shards), BOTH
    )
    scattered = Collective(
        "reduce-scatter", "gradients", micro * share(gradients, shards), micro * layers * hops(shards), BACKWARD
    )
    averaged = ddp(gradients / shards, replicas) if replicas > 1 else ()
    return (gathered, scattered, *averaged)


def diloco(weights: float, processes: int, every: int) -> tuple[Collective, ...]:
    """DiLoCo: an all-reduce of what `every` steps have changed in all weights, behind nothing (Douillard et al. 2023).
    `weights`: bytes of the whole as they are sent, after compression."""
    sent = 2 * share(weights, processes)
    return (Collective("all-reduce", f"every {every} steps", round(sent / every), 2 * hops(processes) / every, None),)


def exposed(collectives: tuple[Collective, ...], link: Link, forward: float, backward: float, parts: int) -> float:
    """Seconds per step in which a process waits for the network: what does not fit behind the passes, `forward` and
    `backward` seconds long, and the last of `parts` equal parts (buckets, layers), which nothing is left to hide."""
    room = {BACKWARD: backward, BOTH: forward + backward}
    left = 0.0
    for pass_, seconds in room.items():
        behind = sum(one.seconds(link) for one in collectives if one.behind == pass_)
        left += max(behind / parts, behind - seconds)
    return left + sum(one.seconds(link) for one in collectives if one.behind is None)
