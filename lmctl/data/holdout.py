"""Held-out split by content hash: the texts with the smallest digests validate, as many as give the right share.

Whether a text's digest is below `share` of the hash range does not depend on other texts, so adding a text moves no
other one. Only where this misses the share by far, as with few texts, is the threshold moved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

SLACK = 1.25
"""The threshold moves if the share is off by more than this factor."""
TOO_LONG = 2.0
"""A text this many times longer than the whole held-out size is not held out, if there are others."""


@dataclass(frozen=True)
class HeldOut:
    """The held-out texts, by digest."""

    last: int
    """Threshold: digests up to this one; -1: none."""
    besides: frozenset[int]
    """Digests above the threshold that are held out as well."""
    spared: frozenset[int]
    """Digests up to the threshold that are not held out."""
    count: int
    share: float
    """Held-out share of the whole size, 0 to 1."""

    def __call__(self, digest: int) -> bool:
        return digest in self.besides or (digest <= self.last and digest not in self.spared)

    def each(self, digests: np.ndarray) -> np.ndarray:
        """Whether each of `digests` uint64 [N] is held out: bool [N]."""
        return np.fromiter(map(self, digests.tolist()), dtype=bool, count=len(digests))


def digest_of(texts: Iterable[str]) -> int:
    """64-bit hash of `texts`, white space normalised and case folded."""
    return _hash("\x00".join(" ".join(part.split()) for part in texts).casefold())


def digests_of(text: str) -> tuple[int, int]:
    """64-bit hashes of a text with white space normalised: with its case, and case folded, as `digest_of`."""
    plain = " ".join(text.split())
    return _hash(plain), _hash(plain.casefold())


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def hold_out(digests: np.ndarray, sizes: np.ndarray, share: float, least: int) -> HeldOut:
    """Hold out about `share` of the total size of two or more distinct texts, uint64 [N] ascending, with sizes int64
    [N]; at least `least` texts, and not all."""
    wanted = share * float(sizes.sum())
    long = sizes > TOO_LONG * wanted
    order = np.lexsort((digests, np.where(long, sizes, 0), long))
    size = sizes[order].cumsum()
    count = _bounded_count(int((digests[~long] < _limit(share)).sum()), size, wanted)
    # A tiny held-out text would be no useful measure.
    count = max(count, least, int(np.searchsorted(size, wanted / 4)) + 1)
    count = min(count, len(digests) - 1)
    taken, short = order[:count], int((~long).sum())
    last = int(digests[order[min(count, short) - 1]]) if short else -1
    spared = digests[long & (digests <= last)] if last >= 0 else digests[:0]
    besides = digests[taken[short:]]
    part = float(size[count - 1] / size[-1])
    return HeldOut(last, frozenset(besides.tolist()), frozenset(spared.tolist()), count, part)


def hold_out_of_classes(digests: np.ndarray, classes: np.ndarray, share: float) -> HeldOut | None:
    """Stratified split: of distinct texts, uint64 [N] ascending, hold out about `share` of each class int64 [N], and
    never all of a class. None if no class has two texts."""
    held = []
    order = np.argsort(classes, kind="stable")
    groups = np.split(digests[order], np.flatnonzero(np.diff(classes[order])) + 1)
    for group in groups:
        count = _bounded_count(int((group < _limit(share)).sum()), np.arange(1, len(group) + 1), share * len(group))
        held.append(group[: min(count, len(group) - 1)])
    largest = max(groups, key=len)
    if len(largest) < 2:
        return None
    taken = np.concatenate(held)
    taken = taken if len(taken) else largest[:1]
    return HeldOut(-1, frozenset(taken.tolist()), frozenset(), len(taken), len(taken) / len(digests))


def _limit(share: float) -> np.uint64:
    return np.uint64(share * 2.0**64)


def _bounded_count(count: int, size: np.ndarray, wanted: float) -> int:
    """`count`, or the nearest number of texts whose cumulative `size` is close enough to the size `wanted`."""
    fewest = int(np.searchsorted(size, wanted / SLACK, side="right"))
    most = int(np.searchsorted(size, wanted * SLACK)) + 1
    return min(max(count, fewest), most)
