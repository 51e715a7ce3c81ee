"""Minimal pairs: a good and a bad sentence per line (Warstadt et al. 2020, BLiMP)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from lmctl.core.errors import DataError
from lmctl.core.json_lines import parsed
from lmctl.inference.input_lines import Placed
from lmctl.inference.letter_case import cased
from lmctl.inference.likelihood import texts
from lmctl.inference.load import Loaded

FORMAT = 'lines are good<TAB>bad, or {"good": ..., "bad": ...}, or BLiMP\'s {"sentence_good": ..., "sentence_bad": ...}'


class Pair(NamedTuple):
    good: str
    bad: str


class Verdict(NamedTuple):
    """A pair and the log-probability of each sentence, in nats."""

    pair: Pair
    good: float
    bad: float


def read_pairs(lines: Iterable[str], name: str) -> Iterator[Pair]:
    """The pairs in the lines of file `name`; DataError with the line that is no pair."""
    return pairs_in(Placed(f"{name}:{number}", line) for number, line in enumerate(lines, start=1))


def pairs_in(stream: Iterable[Placed]) -> Iterator[Pair]:
    """The pairs in lines with positions; blank lines are skipped."""
    return (pair_of(line.text, line.where) for line in stream if line.text.strip())


def judge(loaded: Loaded, pairs: Iterator[Pair], rows: int, length: int, case: str = "as_is") -> Iterator[Verdict]:
    """The log-probabilities of both sentences of each pair, in order."""
    waiting: deque[Pair] = deque()

    def sides() -> Iterator[str]:
        for pair in pairs:
            waiting.append(pair)
            yield from (cased(side, case) for side in pair)

    scores = texts(loaded, sides(), rows, length)
    for good in scores:
        bad = next(scores)
        yield Verdict(waiting.popleft(), float(good.sum()), float(bad.sum()))


KEYS = (("good", "bad"), ("sentence_good", "sentence_bad"))


def pair_of(line: str, where: str) -> Pair:
    """Parse the pair on one line; DataError with its position if it is invalid."""
    if line.lstrip().startswith("{"):
        try:
            return _of_object(parsed(line))
        except ValueError as error:
            raise DataError(f"{where}: not a pair of sentences: {error}", FORMAT) from None
    if line.count("\t") != 1:
        tabs = line.count("\t") or "no"
        raise DataError(f"{where}: not a pair of sentences: {tabs} tab{'s' * (tabs != 1)} between two", FORMAT)
    return Pair(*line.split("\t"))


def _of_object(row: dict[str, Any]) -> Pair:
    keys = next((keys for keys in KEYS if any(key in row for key in keys)), None)
    if keys is None:
        raise ValueError(f"no {KEYS[0][0]!r} and {KEYS[0][1]!r} among its keys ({', '.join(row) or 'none'})")
    for key in keys:
        if key not in row:
            raise ValueError(f"no {key!r}")
        if not isinstance(row[key], str):
            raise ValueError(f"{key!r} is {'null' if row[key] is None else type(row[key]).__name__}, not text")
    return Pair(*(row[key] for key in keys))
