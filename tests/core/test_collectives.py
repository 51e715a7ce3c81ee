"""Costs of collective operations: known values, and limits that any of them must keep."""

from __future__ import annotations

import pytest

from lmctl.core import collectives
from lmctl.core.collectives import BUCKET, Link, ddp, diloco, exposed, fsdp, hops

LINK = Link(bandwidth=1e9, latency=1e-5)


def sent(parts: tuple[collectives.Collective, ...]) -> int:
    return sum(part.bytes for part in parts)


def test_known_values():
    (reduce,) = ddp(4e9, 4)
    assert (reduce.bytes, reduce.messages) == (6_000_000_000, 2 * 2 * 153)  # 2 * 3/4 of it, in 153 buckets
    assert reduce.seconds(LINK) == pytest.approx(6 + 612e-5)
    gathered, scattered = fsdp(2e9, 4e9, 10, 4)
    assert (gathered.bytes, gathered.messages) == (3_000_000_000, 2 * 10 * 2)
    assert (scattered.bytes, scattered.messages) == (3_000_000_000, 10 * 2)
    assert [hops(number) for number in (1, 2, 3, 8, 1024)] == [0, 1, 2, 3, 10]


def test_what_must_hold_of_them():
    assert sent(ddp(1e9, 1)) == sent(fsdp(1e9, 1e9, 4, 1)) == 0
    assert sent(ddp(1e9, 1024)) < 2e9
    # Gathering twice and scattering once is one and a half all-reduces (Rajbhandari et al. 2020, ZeRO-3).
    assert sent(fsdp(1e9, 1e9, 4, 8)) == pytest.approx(1.5 * sent(ddp(1e9, 8)))
    # With replicas, what crosses between them is a shard.
    *_, averaged = fsdp(1e9, 1e9, 4, 8, replicas=16)
    assert averaged.bytes == sent(ddp(1e9 / 8, 16))
    assert sent(diloco(1e9, 8, 100)) == pytest.approx(sent(ddp(1e9, 8)) / 100)


def test_what_hides_behind_the_passes():
    one = ddp(20 * BUCKET, 2)
    seconds = sum(part.seconds(LINK) for part in one)
    assert exposed(one, LINK, 100.0, 100.0, 20) == pytest.approx(seconds / 20)  # the last bucket
    assert exposed(one, LINK, 0.0, 0.0, 20) == pytest.approx(seconds)
    assert exposed(one, LINK, 100.0, seconds / 2, 20) == pytest.approx(seconds / 2)
    rare = diloco(1e9, 2, 10)
    assert exposed(rare, LINK, 100.0, 100.0, 20) == pytest.approx(rare[0].seconds(LINK))
