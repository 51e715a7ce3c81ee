"""Bytes that one of `world` workers sends to the others, by the pattern of the exchange.

Rings are what gloo and NCCL use for messages of this size; trees and shared memory move the same or less. A lone
simulated worker has nobody to send to, so its bytes are those it would send as one of two.
"""

from __future__ import annotations


def peers(world: int) -> int:
    """The workers to count for."""
    return max(2, world)


def all_reduce_bytes(size: int, world: int) -> int:
    """Every worker has `size` bytes and gets the sum: a ring passes each part on to add it up, and again to tell."""
    number = peers(world)
    return 2 * (number - 1) * size // number


def gather_bytes(size: int, world: int) -> int:
    """Every worker has `size` bytes that all others get."""
    return (peers(world) - 1) * size


def scatter_bytes(size: int, world: int) -> int:
    """Every worker has `size` bytes, an equal part for each; or has such a part of `size` bytes that all get."""
    number = peers(world)
    return (number - 1) * size // number
