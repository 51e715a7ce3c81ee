"""The order in which a run sees the rows of a task, as a function of how many it has seen: nothing to save."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lmctl.core.draws import Draws
from lmctl.core.types import Batch, Examples


class RowStream:
    """Endless epochs over the examples of a task, each in an order of its own."""

    def __init__(self, examples: Examples, seed: int, task: str) -> None:
        self.examples = examples
        self.order, self.draws = Draws(seed, f"{task}/order"), Draws(seed, f"{task}/rows")
        self._epoch, self._permutation = -1, np.empty(0, dtype=np.int64)

    def rows(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows at places `start` to `start + count` of the stream, and their epochs: int64 [count] each."""
        size = len(self.examples)
        epochs, places = np.divmod(np.arange(start, start + count), size)
        rows = np.empty(count, dtype=np.int64)
        for epoch in np.unique(epochs):
            if epoch != self._epoch:
                self._epoch, self._permutation = epoch, self.order.permutation(int(epoch), size)
            here = epochs == epoch
            rows[here] = self._permutation[places[here]]
        return rows, epochs

    def window(self, index: int, size: int, micro: int | None, rank: int, world: int) -> list[Batch]:
        """This process's share of the `index`-th window of `size` rows, in micro-batches of at most `micro` rows."""
        share = size // world
        rows, epochs = self.rows(index * size + rank * share, share)
        return list(batches(self.examples, rows, epochs, micro or share, self.draws))


def batches(examples: Examples, rows: np.ndarray, epochs: np.ndarray, micro: int, draws: Draws) -> Iterator[Batch]:
    """`rows` cut into batches of at most `micro` rows."""
    for start in range(0, len(rows), micro):
        piece = slice(start, start + micro)
        yield examples.collate(rows[piece], epochs[piece], draws)
