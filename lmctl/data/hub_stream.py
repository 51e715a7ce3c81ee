"""Reading one split of a dataset in blocks, with seeking to a saved position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from lmctl.core.counter_rng import CounterRng
from lmctl.data.base import StreamPlace
from lmctl.data.hub_dataset import explained
from lmctl.data.records import Record


class Records(NamedTuple):
    """Consecutive records, each with its position as text, and the position of the next block."""

    found: list[tuple[str, Record]]
    after: StreamPlace | None


class BlockReader:
    """Reads an `IterableDataset` shard by shard (a file is a shard), in shuffled order in every pass but the first.

    A position is the shard's index in the order of its pass, the rows read of it, and the state that `datasets` needs
    to resume there. Consecutive blocks are read sequentially; other blocks by seeking.
    """

    def __init__(self, name: str, open_stream: Callable[[], Any]) -> None:
        """`name` names the split in messages; `open_stream` opens the dataset again."""
        self.name, self.open_stream = name, open_stream
        self._coming: Iterator[tuple[str, Record]] = iter(())
        self._next: tuple[int, StreamPlace | None, CounterRng | None] | None = None
        """Arguments of the block that `_coming` yields next."""
        self._at: dict[str, int] = {}
        self._shard: Any = None

    def block(self, count: int, epoch: int, at: StreamPlace | None, order: CounterRng | None) -> Records:
        """At most `count` records of pass `epoch` from position `at` (None: the start); fewer only at the end."""
        key = (epoch, at, order if epoch else None)
        if key != self._next:
            self._coming = self._records(epoch, at, order)
        self._next = None
        with explained(f"{self.name} cannot be read"):
            found = list(islice(self._coming, count))
            after = {**self._at, "state": self._shard.state_dict()} if len(found) == count else None
        if after is not None:
            self._next = (epoch, after, key[2])
        return Records(found, after)

    def _records(self, epoch: int, at: StreamPlace | None, order: CounterRng | None) -> Iterator[tuple[str, Record]]:
        whole = self.open_stream()
        shards = list(range(whole.num_shards))
        if epoch and order is not None:
            shards = order.permutation(epoch, len(shards)).tolist()
        start = at or {"shard": 0, "row": 0, "state": None}
        for place, number in list(enumerate(shards))[start["shard"] :]:
            self._shard = whole.shard(len(shards), number) if len(shards) > 1 else whole
            row = 0
            if place == start["shard"] and start["state"] is not None:
                self._shard.load_state_dict(start["state"])
                row = start["row"]
            where = f"{self.name} shard {number}" if len(shards) > 1 else self.name
            for record in self._shard:
                row += 1
                self._at = {"shard": place, "row": row}
                yield f"{where} row {row}", record
