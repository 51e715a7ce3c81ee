"""Sentence spans for segment pairs: chunks of documents, sampling of second segments, and truncation."""

from __future__ import annotations

import numpy as np

from lmctl.core.token_store import TokenStore

MOST_CONTINUATIONS = 1 << 20
"""Limit of memory: in a larger corpus second segments are sampled from every n-th chunk only."""


def chunks(store: TokenStore, room: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spans of at least two sentences of one document, about `room` tokens long: first, last + 1, document.

    A document is cut into as many chunks as it fills rows of `room` tokens, all with (almost) the same number of
    sentences. Cuts by tokens would put longer sentences next to a cut, from which it could be recognised.
    """
    documents = np.asarray(store.documents)
    sentences, tokens = np.diff(documents), np.diff(store.document_starts)
    count = np.minimum(np.maximum(np.rint(tokens / room).astype(np.int64), 1), sentences // 2)
    document = np.repeat(np.arange(len(count)), count)
    number = np.arange(len(document)) - np.repeat(count.cumsum() - count, count)
    first, last = (documents[document] + (number + n) * sentences[document] // count[document] for n in (0, 1))
    return first, last, document


class Continuations:
    """Index of all second segments in a store, to sample one of the same shape from another document.

    The shape is what is visible without reading: number of tokens, number of sentences, and whether the document ends
    there. Within a shape each is drawn as often as it is a true second segment, so that a second segment alone does not
    reveal where it comes from.
    """

    def __init__(self, store: TokenStore, first: np.ndarray, last: np.ndarray, document: np.ndarray) -> None:
        self.starts, self.documents = np.asarray(store.sentences), np.asarray(store.documents)
        self.most = int((last - first).max())
        every = -(-int((last - first - 1).sum()) // MOST_CONTINUATIONS)
        first, last, document = first[::every], last[::every], document[::every]
        cuts = last - first - 1
        chunk = np.repeat(np.arange(len(first)), cuts)
        begin = first[chunk] + 1 + np.arange(len(chunk)) - np.repeat(cuts.cumsum() - cuts, cuts)
        end, owner, weight = last[chunk], document[chunk], 1 / cuts[chunk]
        if len(np.unique(owner)) < 2:  # then use any other document, even of one sentence
            others = np.setdiff1d(np.arange(len(self.documents) - 1), owner)
            begin, end = np.append(begin, self.documents[others]), np.append(end, self.documents[others + 1])
            owner, weight = np.append(owner, others), np.append(weight, np.ones(len(others)))
        key = self._shape(begin, end, owner) * self._owners + owner
        order = np.argsort(key, kind="stable")
        self.key, self.begin, self.end, self.owner = key[order], begin[order], end[order], owner[order]
        self.weight = np.append(0.0, weight[order].cumsum())
        """float64 [E + 1]: cumulative weight of all entries before an index."""
        changes = np.flatnonzero(np.append(True, self.owner[1:] != self.owner[:-1]))
        self.run = np.repeat(np.arange(len(changes)), np.diff(np.append(changes, len(key))))
        self.runs = np.append(changes, len(key))
        """Start indices of runs of entries of one document."""

    @property
    def _owners(self) -> int:
        return len(self.documents) - 1

    def _shape(self, begin: np.ndarray, end: np.ndarray, document: np.ndarray) -> np.ndarray:
        """One number int64 [R] per shape, ordered by length."""
        length = self.starts[end] - self.starts[begin]
        return (length * (self.most + 1) + end - begin) * 2 + (end == self.documents[document + 1])

    def of_another(
        self, begin: np.ndarray, end: np.ndarray, document: np.ndarray, draws: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """First and last + 1 sentence, int64 [R], of a continuation from another document, of the shape of `begin` to
        `end` of `document`, all int64 [R]. If there is none, the nearest in length, shorter or longer at random.
        `draws` float64 [2, R] are uniform."""
        floor = self._shape(begin, end, document) * self._owners
        low, high = np.searchsorted(self.key, [floor, floor + self._owners])
        own, after_own = np.searchsorted(self.key, [floor + document, floor + document + 1])
        mine = self.weight[after_own] - self.weight[own]
        others = self.weight[high] - self.weight[low] - mine
        wanted = self.weight[low] + draws[0] * others
        wanted = np.where(wanted >= self.weight[own], wanted + mine, wanted)
        place = np.searchsorted(self.weight, wanted, side="right") - 1
        place = np.clip(place, 0, len(self.key) - 1)
        found = (place >= low) & (place < high) & (self.owner[place] != document)
        place = np.where(found, place, self._nearest_outside(low, high, document, draws[1]))
        return self.begin[place], self.end[place]

    def _nearest_outside(self, low: np.ndarray, high: np.ndarray, document: np.ndarray, side: np.ndarray) -> np.ndarray:
        """The nearest index outside of `low` to `high` that is of another document."""
        last = len(self.key) - 1
        up = np.minimum(high, last)
        up = np.where(self.owner[up] == document, self.runs[self.run[up] + 1], np.where(high > last, last + 1, up))
        down = np.maximum(low - 1, 0)
        down = np.where(self.owner[down] == document, self.runs[self.run[down]] - 1, np.where(low == 0, -1, down))
        return np.where((up <= last) & ((side < 0.5) | (down < 0)), up, down)


def shortened(lengths: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Lengths int64 [2, R] of pairs truncated to `room` int64 [R]: always the longer segment, B when equal
    (`truncate_seq_pair` of the paper's code, in closed form)."""
    excess = np.maximum(lengths.sum(axis=0) - room, 0)
    gap = lengths[0] - lengths[1]
    from_longer = np.minimum(np.abs(gap), excess)
    rest = excess - from_longer
    removed = [np.where(gap > 0, from_longer, 0) + rest // 2, np.where(gap < 0, from_longer, 0) + (rest + 1) // 2]
    return lengths - np.stack(removed)


def cut(begin: np.ndarray, end: np.ndarray, lengths: np.ndarray, coins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Token ranges, begin and end int64 [2, R], truncated to `lengths` int64 [2, R], each token from the front or the
    back of its segment at random (as the paper's code does); `coins` bool [R, n]."""
    removed = end - begin - lengths
    heads = np.pad(coins.cumsum(axis=1), ((0, 0), (1, 0)))
    flips = coins.shape[1]
    row = np.arange(coins.shape[0])
    # Each segment uses its own coins, A's from the left and B's from the right; a segment that needs more coins than
    # there are continues in the same proportion.
    used = np.minimum(removed, flips // 2)
    a_front = heads[row, used[0]]
    b_front = heads[row, flips] - heads[row, flips - used[1]]
    share = np.stack([a_front, b_front]) / np.maximum(used, 1)
    front = np.where(removed > 0, np.rint(share * removed), 0).astype(np.int64)
    return begin + front, end - (removed - front)
