"""N-best rescoring: choosing among the hypotheses of a speech recogniser with a language model.

Log-linear: score + weight * log p(text) + bonus * words (Ogawa et al. 1998; Mikolov et al. 2010, section 4). Weight and
bonus are those with the fewest word errors on a development set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from lmctl.core import progress
from lmctl.core.errors import ConfigError, DataError
from lmctl.core.json_lines import parsed
from lmctl.inference.input_lines import Placed
from lmctl.inference.letter_case import cased
from lmctl.inference.likelihood import texts
from lmctl.inference.load import Loaded
from lmctl.inference.wer import word_errors

FORMAT = 'lines are {"id": ..., "ref": ..., "hyps": [{"text": ..., "score": ...}, ...]}'

WEIGHTS = np.concatenate([[0.0], np.geomspace(0.01, 10, 40)])
BONUSES = np.linspace(-6, 6, 49)
_ROUNDS = 2
"""Number of refined grids around the best point of the coarse one."""


class Utterance(NamedTuple):
    """One n-best list, in the order of the file."""

    name: str
    reference: str
    texts: list[str]
    scores: list[float]


@dataclass(frozen=True)
class Lists:
    """N-best lists as arrays [U, H]; a shorter list is padded with score -inf."""

    utterances: list[Utterance]
    lm: np.ndarray
    """float64 [U, H]: log-probability of each hypothesis under the language model, in nats."""

    @cached_property
    def scores(self) -> np.ndarray:
        return self._table(lambda u: u.scores, -math.inf)

    @cached_property
    def words(self) -> np.ndarray:
        return self._table(lambda u: [len(text.split()) for text in u.texts], 0)

    @cached_property
    def errors(self) -> np.ndarray:
        """int64 [U, H]: word errors."""
        wrong = self._table(lambda u: [word_errors(u.reference, text) for text in u.texts], 1e9)
        return wrong.astype(np.int64)

    @cached_property
    def reference_words(self) -> int:
        return max(1, sum(len(u.reference.split()) for u in self.utterances))

    def chosen(self, weight: float, bonus: float) -> np.ndarray:
        """int64 [U]: index of the best hypothesis; of equals the first."""
        return (self.scores + weight * self.lm + bonus * self.words).argmax(axis=1)

    def wer(self, chosen: np.ndarray) -> float:
        """Word error rate of these choices, in percent."""
        return 100 * int(self.errors[np.arange(len(chosen)), chosen].sum()) / self.reference_words

    @property
    def first(self) -> np.ndarray:
        """The recogniser's own choice: the best score, not the first line."""
        return self.chosen(0.0, 0.0)

    @property
    def oracle(self) -> np.ndarray:
        """The choice with the fewest errors."""
        return self.errors.argmin(axis=1)

    def _table(self, values: Callable[[Utterance], Sequence[float]], fill: float) -> np.ndarray:
        rows = [values(u) for u in self.utterances]
        table = np.full((len(rows), max(map(len, rows))), fill)
        for place, row in enumerate(rows):
            table[place, : len(row)] = row
        return table


class Tuned(NamedTuple):
    """The best parameters on the development lists."""

    weight: float
    bonus: float


def read_lists(lines: Iterable[str], name: str) -> list[Utterance]:
    """The lists in the lines of file `name`; DataError with the line that is no list."""
    return collected((Placed(f"{name}:{number}", line) for number, line in enumerate(lines, start=1)), name)


def collected(stream: Iterable[Placed], name: str) -> list[Utterance]:
    """The lists in lines with positions; `name` is the name of the file in messages."""
    found = [utterance(line.text, line.where) for line in stream if line.text.strip()]
    if not found:
        raise DataError(f"{name} has no n-best lists", FORMAT)
    return found


def with_lm(loaded: Loaded, sets: list[list[Utterance]], rows: int, length: int, case: str) -> Iterator[Lists]:
    """Each set of lists with the language model's scores; equal texts are scored once."""
    unique = list(dict.fromkeys(cased(text, case) for lists in sets for u in lists for text in u.texts))
    with progress.stage("scoring hypotheses", len(unique), "texts"):
        known = dict(zip(unique, (float(line.sum()) for line in texts(loaded, unique, rows, length)), strict=True))
    for text, value in known.items():
        if not math.isfinite(value):
            raise ConfigError(f"model_path={loaded.path} gives {text[:60]!r} the log-probability {value}: it is broken")
    for lists in sets:
        table = np.zeros((len(lists), max(len(u.texts) for u in lists)))
        for place, u in enumerate(lists):
            table[place, : len(u.texts)] = [known[cased(text, case)] for text in u.texts]
        yield Lists(lists, table)


def tune(lists: Lists) -> Tuned:
    """Weight and bonus with the fewest errors: a coarse grid, then finer ones around its best point. Of equals the
    bonus, then the weight, nearest to 0; both 0 is a candidate, so that rescoring is never worse on this set."""
    weights, bonuses = WEIGHTS, BONUSES
    best = Tuned(0.0, 0.0)
    for _ in range(1 + _ROUNDS):
        candidates = [best, *(Tuned(float(w), float(b)) for w in weights for b in bonuses)]
        best = min(candidates, key=lambda t: (lists.wer(lists.chosen(*t)), abs(t.bonus), t.weight))
        step = (bonuses[-1] - bonuses[0]) / (len(bonuses) - 1)
        weights = best.weight * np.geomspace(0.8, 1.25, 15) if best.weight else weights[:3] / 2
        bonuses = best.bonus + step * np.linspace(-1, 1, 9)
    return Tuned(round(best.weight, 4), round(best.bonus, 4))


def rescored(lists: Lists, tuned: Tuned) -> dict[str, float]:
    """Word error rates in percent: the recogniser's choice, the rescored choice, and the oracle."""
    return {
        "wer_before": lists.wer(lists.first),
        "wer_after": lists.wer(lists.chosen(*tuned)),
        "wer_oracle": lists.wer(lists.oracle),
    }


def utterance(line: str, where: str) -> Utterance:
    """Parse the list on one line; DataError with its position if it is invalid. Scores must be numbers and texts
    strings: a NaN would win every comparison, and null would become the word None."""
    try:
        row = parsed(line)
        if not isinstance(row, dict):
            raise ValueError("not a JSON object")
        name = _typed_value(row, "id", (str, int), "text or a whole number")
        reference = _typed_value(row, "ref", (str,), "text")
        hyps = _typed_value(row, "hyps", (list,), "a list")
        found = [_hypothesis(hyp, number) for number, hyp in enumerate(hyps, start=1)]
    except ValueError as error:
        raise DataError(f"{where}: not an n-best list: {error}", FORMAT) from None
    if not found:
        raise DataError(f"{where}: utterance {name} has no hypotheses", FORMAT)
    return Utterance(str(name), reference, [text for text, _ in found], [score for _, score in found])


def _hypothesis(hyp: Any, number: int) -> tuple[str, float]:
    """Text and score of a hypothesis; ValueError with its number if it is invalid."""
    try:
        if not isinstance(hyp, dict):
            raise ValueError("not a JSON object")
        text, score = _typed_value(hyp, "text", (str,), "text"), _typed_value(hyp, "score", (int, float), "a number")
        value = float(score)
        if not math.isfinite(value):
            raise ValueError(f"'score' is {score}, which cannot be compared")
    except OverflowError:
        raise ValueError(f"hypothesis {number}: 'score' is too large a number") from None
    except ValueError as error:
        raise ValueError(f"hypothesis {number}: {error}") from None
    return text, value


def _typed_value(row: dict[str, Any], name: str, kinds: tuple[type, ...], what: str) -> Any:
    """The value of a key; ValueError unless its type is in `kinds` (booleans are no numbers)."""
    if name not in row:
        raise ValueError(f"no {name!r}")
    value = row[name]
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise ValueError(f"{name!r} is {'null' if value is None else type(value).__name__}, not {what}")
    return value
