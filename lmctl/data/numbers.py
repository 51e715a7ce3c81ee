"""`data=numbers`: a synthetic translation task without files: numbers in words, in two languages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from lmctl.core.batch import Kind, Row, Split
from lmctl.data.base import Source
from lmctl.data.number_words import LANGUAGES
from lmctl.data.row_split import RowPartition, partition
from lmctl.data.split import check_share

BELOW = 1_000_000


@dataclass(frozen=True)
class Numbers(Source):
    """`size` distinct numbers below a million, always the same."""

    source_language: str = "en"
    target_language: str = "de"
    size: int = 20000
    valid_share: float = 0.05

    yields: ClassVar[Kind] = "parallel"
    embedded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("source_language", "target_language"):
            if getattr(self, name) not in LANGUAGES:
                raise ValueError(f"{name} must be one of {', '.join(LANGUAGES)}, got {getattr(self, name)!r}")
        if not 2 <= self.size <= BELOW:
            raise ValueError(f"size must be from 2 to {BELOW}, got {self.size}")
        check_share(self.valid_share)

    def _read(self) -> Iterator[Row]:
        source, target = LANGUAGES[self.source_language], LANGUAGES[self.target_language]
        # Equally many of each length, and all short ones: a uniform sample would be nearly all six digits.
        generator = np.random.Generator(np.random.Philox(key=0))
        exponents = generator.random(20 * self.size) * np.log(BELOW)
        numbers = dict.fromkeys(np.exp(exponents).astype(np.int64).tolist())
        rest = (n for n in generator.permutation(BELOW).tolist() if n not in numbers)
        chosen = list(numbers)[: self.size]
        chosen += [n for n, _ in zip(rest, range(self.size - len(chosen)), strict=False)]
        for number in chosen:
            yield Row([source(number), target(number)], None, str(number))

    @cached_property
    def _partition(self) -> RowPartition:
        return partition(self._read, self.valid_share, "the numbers", 1)

    def rows(self, split: Split) -> Iterator[Row]:
        """The rows of one split; no number is in both."""
        return self._partition.rows(split)

    def fingerprint(self) -> Mapping[str, Any]:
        """The options, which determine all rows."""
        languages = [self.source_language, self.target_language]
        return {"source": "numbers", "version": 2, "languages": languages, "size": self.size, "valid": self.valid_share}

    def describe(self) -> str:
        """One line: languages, rows."""
        return f"numbers in words, {self.source_language} -> {self.target_language}: {self._partition}"
