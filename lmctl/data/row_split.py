"""Held-out split of labelled and parallel rows by content hash, so that no text is in both splits."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmctl.core.batch import Row, Split
from lmctl.core.errors import DataError
from lmctl.data.holdout import HeldOut, digest_of, hold_out, hold_out_of_classes
from lmctl.data.kept_rows import kept
from lmctl.data.split import TRAINS, VALIDATES, chosen, fates_of

Read = Callable[[], Iterator[Row]]
"""Reads all rows from the start, always the same."""


@dataclass(frozen=True)
class RowPartition:
    """Rows in two splits, each streamed from the source at every reading."""

    read: Read
    read_valid: Read | None
    fates: bytes
    """What becomes of each row of `read` (`lmctl.data.split`)."""
    answered: frozenset[int]
    """Digests of the translations of held-out rows: training rows with the same translation are dropped."""
    train_rows: int
    valid_rows: int
    dropped: int
    """Training rows dropped because their text, or their translation, is among the validation rows."""

    def rows(self, split: Split) -> Iterator[Row]:
        if split == "valid" and self.read_valid is not None:
            return self.read_valid()
        return chosen(self.read, self.fates, VALIDATES if split == "valid" else TRAINS)

    def translated(self, row: Row) -> bool:
        """Whether a held-out row has the same translation."""
        return bool(self.answered) and _translation_digest(row) in self.answered

    def __str__(self) -> str:
        dropped = f", {self.dropped:,} dropped that are held out as well" if self.dropped else ""
        return f"{self.train_rows:,} rows and {self.valid_rows:,} held out{dropped}"


def partition(read: Read, share: float, name: str, sides: int | None, read_valid: Read | None = None) -> RowPartition:
    """Hold out about `share` of the distinct texts, stratified by class; or, with `read_valid`, all rows of `read` with
    the same content as one of its rows. A row is identified by its first `sides` texts (None: all)."""
    read = kept(read, list, _row)
    rows = _Rows(read, sides)
    if not len(rows.digests):
        raise DataError(f"{name} has no rows")
    if read_valid is not None:
        read_valid = kept(read_valid, list, _row)
        valid = [digest(row, sides) for row in read_valid()]
        if not valid:
            raise DataError(f"the validation text of {name} has no rows")
        inside = np.isin(rows.digests, np.array(valid, dtype=np.uint64))
        if inside.all():
            raise DataError(f"{name} has no row that is not among the validation rows")
        dropped, count = int(inside.sum()), int((~inside).sum())
        return RowPartition(read, read_valid, fates_of(~inside), frozenset(), count, len(valid), dropped)
    if len(rows.texts) < 2:
        raise DataError(f"{name} has one text only: nothing is left to train on when it is held out", "give more rows")
    inside = rows.held_out(share).each(rows.digests)
    answered, trains = frozenset[int](), ~inside
    if len(rows.answers):
        trains = ~inside & ~np.isin(rows.answers, rows.answers[inside])
        answered = frozenset(rows.answers[inside].tolist())
    if not trains.any():  # all rows have the same translation
        answered, trains = frozenset(), ~inside
    held, count = int(inside.sum()), int(trains.sum())
    return RowPartition(read, None, fates_of(trains, inside), answered, count, held, len(inside) - held - count)


def _row(kept: list[Any]) -> Row:
    return Row(*kept)


def digest(row: Row, sides: int | None) -> int:
    """64-bit hash of the first `sides` texts of a row, with case and white space normalised."""
    return digest_of(row.texts[:sides])


def _translation_digest(row: Row) -> int:
    return digest_of(row.texts[1:])


class _Rows:
    """What is kept in memory of all rows to choose the split: some numbers per row."""

    def __init__(self, read: Read, sides: int | None) -> None:
        self.names: dict[str, int] = {}
        """Label -> number."""
        digests, answers, labelled, labels = array("Q"), array("Q"), array("Q"), array("q")
        for row in read():
            digests.append(digest(row, sides))
            if row.label is not None:
                for label in row.label if isinstance(row.label, list) else [row.label]:
                    labelled.append(digests[-1])
                    labels.append(self.names.setdefault(str(label), len(self.names)))
            elif len(row.texts) == 2:
                answers.append(_translation_digest(row))
        self.digests = np.array(digests, dtype=np.uint64)
        self.texts = np.unique(self.digests)
        """uint64 [distinct texts]"""
        self.answers = np.array(answers, dtype=np.uint64)
        """uint64 [rows]: digests of the translations, if there are any."""
        self.labels = np.array(labels, dtype=np.int64)
        """int64 [labels of rows]"""
        self.labelled = np.searchsorted(self.texts, np.array(labelled, dtype=np.uint64))
        """int64 [labels of rows]: index into `texts` of each label's text."""

    def held_out(self, share: float) -> HeldOut:
        classes = self._classes() if self.names else None
        held = None if classes is None else hold_out_of_classes(self.texts, classes, share)
        return held or hold_out(self.texts, np.ones(len(self.texts), dtype=np.int64), share, 1)

    def _classes(self) -> np.ndarray | None:
        """int64 [distinct texts]: the rarest label of each text, so that no label is held out completely; None for a
        regression target, with nearly all values distinct."""
        names = list(self.names)
        classes, single = self._rarest(self.labelled, self.labels, names)
        if single * 2 <= len(self.texts):
            return classes
        if all(map(_is_number, names)):
            return None
        # Nearly all distinct: perhaps several labels in one string.
        parts: dict[str, int] = {}
        of = [[parts.setdefault(part.strip(), len(parts)) for part in name.split(",")] for name in names]
        where = np.repeat(self.labelled, np.array([len(some) for some in of])[self.labels])
        return self._rarest(where, np.array([part for label in self.labels for part in of[label]]), list(parts))[0]

    def _rarest(self, where: np.ndarray, labels: np.ndarray, names: list[str]) -> tuple[np.ndarray, int]:
        """Each text's rarest label, int64 [distinct texts], numbered from the rarest; and the number of labels that a
        single text has. `labels` int64 [n] are those of the texts `where` int64 [n]."""
        once = np.unique(np.stack([where, labels]), axis=1)
        counts = np.bincount(once[1], minlength=len(names))
        rank = np.empty(len(names), dtype=np.int64)
        rank[sorted(range(len(names)), key=lambda label: (counts[label], names[label]))] = np.arange(len(names))
        classes = np.full(len(self.texts), len(names))
        np.minimum.at(classes, once[0], rank[once[1]])
        return classes, int((counts == 1).sum())


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True
