"""Minimal pairs: two sentences, of which one is good, in a file (Warstadt et al. 2020, BLiMP)."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from lmctl.core.errors import DataError
from lmctl.use.case import cased
from lmctl.use.likelihood import texts
from lmctl.use.load import Loaded

FORMAT = 'lines are good<TAB>bad, or {"good": ..., "bad": ...}, or BLiMP\'s {"sentence_good": ..., "sentence_bad": ...}'


class Pair(NamedTuple):
    good: str
    bad: str


class Verdict(NamedTuple):
    """A pair and the log-probability of each side, in nats."""

    pair: Pair
    good: float
    bad: float


def read_pairs(lines: Iterator[str], name: str) -> Iterator[Pair]:
    """The pairs in the lines of file `name`; DataError says which line is none."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _pair(line, f"{name}:{number}")


def judge(loaded: Loaded, pairs: Iterator[Pair], rows: int, length: int, case: str = "as_is") -> Iterator[Verdict]:
    """The log-probability of both sides of each pair, in order."""
    waiting: deque[Pair] = deque()

    def sides() -> Iterator[str]:
        for pair in pairs:
            waiting.append(pair)
            yield from (cased(side, case) for side in pair)

    scores = texts(loaded, sides(), rows, length)
    for good in scores:
        bad = next(scores)
        yield Verdict(waiting.popleft(), float(good.sum()), float(bad.sum()))


def _pair(line: str, where: str) -> Pair:
    if line.lstrip().startswith("{"):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not JSON: {error}", FORMAT) from None
        for good, bad in (("good", "bad"), ("sentence_good", "sentence_bad")):
            if isinstance(row.get(good), str) and isinstance(row.get(bad), str):
                return Pair(row[good], row[bad])
    elif line.count("\t") == 1:
        return Pair(*line.split("\t"))
    raise DataError(f"{where}: not a pair of sentences", FORMAT)
