"""Rows from named columns, for any file format: the configured columns decide the kind of the rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Optional, Self

from lmctl.core.batch import Document, DocumentWithText, Kind, Row, Split
from lmctl.core.errors import ConfigError, DataError, LmctlError
from lmctl.core.paths import Place
from lmctl.data.base import Source
from lmctl.data.file_status import FileStates, states
from lmctl.data.files import LOST, find, text_files
from lmctl.data.guess import how_to_label
from lmctl.data.reading import fingerprint
from lmctl.data.records import BadRow, NoColumn, Record, label_of, texts_of, value_of
from lmctl.data.row_split import RowPartition, partition
from lmctl.data.sentences import split_sentences
from lmctl.data.split import Partition, by_content, by_text, check_share

VERSION = 2
"""Version of the reading code: increase it when the same files and options yield other rows."""

_NO_COLUMN = "\x1fnone"
"""A name that no column has: if requested, all columns are read."""

_LOOK_AT = 100
"""Records inspected to guess the roles of columns."""

_LOOK_AHEAD = 10_000
"""Records searched for a column that the first one lacks."""


@dataclass(frozen=True)
class Columns(Source):
    """Rows from named columns; `source` and `target` make them parallel, `label` labelled, `text` alone documents.

    A file path or a split, which can be read by its name, is called a part.
    """

    path: Place
    text: str = "text"
    text_b: Optional[str] = None
    label: Optional[str] = None
    source: Optional[str] = None
    target: Optional[str] = None
    valid_share: float = 0.05
    on_bad_row: str = "error"

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError(f"path must name {self.what_path_is}")
        if self.on_bad_row not in ("error", "skip"):
            raise ValueError(f"on_bad_row must be error or skip, got {self.on_bad_row!r}")
        if (self.source is None) != (self.target is None):
            raise ValueError("source and target are two columns of parallel text: give both")
        if self.source is not None and self.label is not None:
            raise ValueError("label and source exclude each other: rows are labelled or parallel")
        if self.text_b is not None and self.label is None:
            raise ValueError("text_b is the second text of labelled pairs: give label as well")
        if self.label is not None and self.label in self.columns:
            raise ValueError(f"label and text are the same column, {self.label!r}")
        check_share(self.valid_share)

    option: ClassVar[str]
    """Its option name in the group `data`."""
    what_path_is: ClassVar[str] = "a file, a folder or a pattern"

    @abstractmethod
    def records(self, part: str) -> Iterator[tuple[str, Record | BadRow]]:
        """The records of a part, each with its position (`file:line`); or the error of a bad one."""

    @property
    @abstractmethod
    def parts(self) -> tuple[str, str | None]:
        """The part with training rows, and the one with validation rows; None if these are held out of the first."""

    @cached_property
    def yields(self) -> Kind:
        if self.source is not None:
            return "parallel"
        return "documents" if self.label is None else "labelled"

    @property
    def sides(self) -> int | None:
        """How many of a row's first texts identify it for the held-out split; None: all. Of pairs the first one, which
        often occurs in several of them."""
        held_out = self.yields == "labelled" and self.parts[1] is None
        return 1 if held_out or self.yields == "parallel" else None

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns with text."""
        names = (self.source, self.target) if self.source is not None else (self.text, self.text_b)
        return tuple(name for name in names if name is not None)

    @cached_property
    def wanted(self) -> tuple[str, ...]:
        """All columns that are read."""
        return (*self.columns, *([self.label] if self.label is not None else []))

    def read(self, part: str) -> Iterator[Row]:
        """The good rows of a part; DataError at the first bad one, unless bad rows are skipped. ConfigError if no row
        has a configured column."""
        good, first, bad = 0, "", 0
        begin = ""
        absent: NoColumn | None = None
        records = self.records(part)
        for where, record in records:
            row = self.checked(where, record)
            if isinstance(row, Row):
                good += 1
                yield row
                continue
            if not good and not bad and isinstance(row, NoColumn):
                begin, absent = where, row
                if self.on_bad_row == "error":
                    absent = _missing_everywhere(row, islice(records, _LOOK_AHEAD))
            elif absent is not None:
                absent = absent.as_well(row)
            if absent is not None and self.on_bad_row == "error":
                raise self._no_column(begin, absent)
            first, bad = first or self.skip(where, row), bad + 1
        if bad and not good:
            if absent is not None:
                raise self._no_column(begin, absent)
            raise DataError(f"{part}: all {bad:,} rows are bad; the first: {first}")
        self.skipped[part] = (bad, first)

    def skip(self, where: str, row: BadRow) -> str:
        """The problem of a skipped row, with its position; DataError if bad rows are not skipped."""
        if self.on_bad_row == "error":
            raise DataError(f"{where}: {row}", row.hint)
        return f"{where}: {row}"

    def _no_column(self, where: str, missing: NoColumn) -> ConfigError:
        """The error if no row has a column, `where` being the first row."""
        keys = ("text", "text_b", "label", "source", "target")
        key = next((key for key in keys if getattr(self, key) == missing.name), "text")
        hint = f"{missing.columns}; say which it is: data.{key}=COLUMN"
        return ConfigError(f"{where}: {missing}", f"{hint}{self.other_reading}")

    other_reading: ClassVar[str] = ""
    """Another possible cause of a missing column, appended to the hint."""

    @cached_property
    def skipped(self) -> dict[str, tuple[int, str]]:
        """Number of bad rows per part in its last complete reading, and the first of them."""
        return {}

    def checked(self, where: str, record: Record | BadRow) -> Row | BadRow:
        """The row of a record, or its error."""
        if isinstance(record, BadRow):
            return record
        try:
            return self._row(record, where)
        except BadRow as error:
            return error.with_traceback(None)

    def _row(self, record: Record, where: str) -> Row:
        texts = [texts_of(record, name) for name in self.columns]
        if self.yields == "documents":
            value = value_of(record, self.text)
            sentences = texts[0] if isinstance(value, list) else split_sentences(texts[0][0])
            return Row(DocumentWithText(sentences, value) if isinstance(value, str) else sentences, None, where)
        label = None if self.label is None else label_of(record, self.label)
        return Row([" ".join(parts) for parts in texts], label, where)

    def how_to_label(self, where: str = "") -> str | None:
        """A hint: settings that would make its rows labelled, with its own columns, if they can be guessed; `where` is
        the prefix of the keys, if not `data.`."""
        try:
            return how_to_label(where, self.option, self.path, self.text, self.some_records())
        except LmctlError:  # reported when it is read
            return None

    def with_all_columns(self) -> Self:
        """The same source with all columns in its records, for guessing."""
        return replace(self, text=_NO_COLUMN, text_b=None, label=None, source=None, target=None)

    def some_records(self) -> list[Record]:
        """The first records with all their columns."""
        every = self.with_all_columns()
        records = islice(every.records(every.parts[0]), _LOOK_AT)
        return [record for _, record in records if not isinstance(record, BadRow)]

    @cached_property
    def _partition(self) -> RowPartition | Partition:
        train, valid = self.parts
        if self.yields == "documents":
            if valid is None:
                return by_content(lambda: self._documents(train), self.valid_share, self.path)
            return by_text(lambda: self._documents(train), lambda: self._documents(valid), self.path, valid)
        read_valid = None if valid is None else (lambda: self.read(valid))
        return partition(lambda: self.read(train), self.valid_share, self.path, self.sides, read_valid)

    def _documents(self, part: str) -> Iterator[Document]:
        return (row.texts for row in self.read(part))

    def rows(self, split: Split) -> Iterator[Row]:
        """The rows of one split; DataError with its position if one is bad."""
        return self._partition.rows(split)

    @property
    def place(self) -> str:
        return self.path

    def describe(self) -> str:
        """One line: columns, rows, bad rows."""
        names = ", ".join([*self.columns, *([f"label {self.label}"] if self.label else [])])
        text = f"{self.path}: {names}; {self._partition}"
        bad = sum(count for count, _ in self.skipped.values())
        if bad:
            first = next(first for count, first in self.skipped.values() if count)
            text += f"; {bad:,} bad row{'s' * (bad != 1)} skipped, the first: {first}"
        return text


@dataclass(frozen=True)
class ColumnSource(Columns):
    """Rows from files with named columns."""

    valid_path: Optional[Place] = None

    @abstractmethod
    def in_file(self, path: Path) -> Iterator[tuple[str, Record | BadRow]]:
        """The records of one file, each with its position `file:line`; or the error of a bad one."""

    @property
    @abstractmethod
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of its files, for finding them in a folder."""

    @property
    def parts(self) -> tuple[str, str | None]:
        return self.path, self.valid_path

    def records(self, part: str) -> Iterator[tuple[str, Record | BadRow]]:
        for file in self.files(part):
            yield from self.in_file(file)

    def files(self, path: str) -> list[Path]:
        """The files at `path`, sorted."""
        return text_files(path, self.suffixes)

    def describe(self) -> str:
        """As for any rows, and how many links in its folders lead nowhere."""
        parts = [part for part in self.parts if part is not None]
        lost = sum(find(part, self.suffixes).left_out[LOST] for part in parts)
        return super().describe() + (f"; left out: {LOST} {lost:,}" if lost else "")

    def state(self) -> FileStates:
        return states(file for part in self.parts if part is not None for file in self.files(part))

    def fingerprint(self) -> Mapping[str, Any]:
        """File contents (not their names), the columns read, and the split."""
        valid = self.valid_share if self.valid_path is None else fingerprint(self.files(self.valid_path))
        return {
            "source": type(self).__name__,
            "version": VERSION,
            "files": fingerprint(self.files(self.path)),
            "columns": [self.text, self.text_b, self.label, self.source, self.target],
            "valid": valid,
            "on_bad_row": self.on_bad_row,
        }


def _missing_everywhere(missing: NoColumn, others: Iterator[tuple[str, Record | BadRow]]) -> NoColumn | None:
    """`missing` with the columns of the other records added, or None if one of them has the column."""
    for _, record in others:
        if isinstance(record, BadRow):
            continue
        try:
            value_of(record, missing.name)
            return None
        except NoColumn as error:
            missing = missing.as_well(error) or missing
    return missing
