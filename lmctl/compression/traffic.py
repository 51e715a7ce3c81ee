"""Communication volume: bytes that one of `world` workers sends, by collective (all-reduce, all-gather, scatter).

Computed for ring algorithms, which gloo and NCCL use for messages of this size; trees and shared memory send the same
or less. A single simulated worker has no peer, so its bytes are those it would send as one of two.
"""

from __future__ import annotations


def peers(world: int) -> int:
    """Number of workers to compute with: at least 2."""
    return max(2, world)


def all_reduce_bytes(size: int, world: int) -> int:
    """Ring all-reduce of `size` bytes: reduce-scatter, then all-gather."""
    number = peers(world)
    return 2 * (number - 1) * size // number


def gather_bytes(size: int, world: int) -> int:
    """All-gather where every worker contributes `size` bytes."""
    return (peers(world) - 1) * size


def scatter_bytes(size: int, world: int) -> int:
    """Reduce-scatter or all-to-all of `size` bytes per worker, one part for each; or all-gather of such parts."""
    number = peers(world)
    return (number - 1) * size // number
