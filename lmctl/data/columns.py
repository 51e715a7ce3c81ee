"""Rows with named columns, whatever file they come from: which columns are read decides what the rows are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Optional

from lmctl.core.batch import Document, Kind, Row, Split
from lmctl.core.errors import DataError
from lmctl.data.reading import fingerprint, text_files
from lmctl.data.records import BadRow, Record, plain, text_of, value_of
from lmctl.data.row_split import RowPartition, partition
from lmctl.data.sentences import split_sentences
from lmctl.data.split import Partition, by_content, by_text, check_share

VERSION = 2
"""Raise it when the same files and options begin to yield other rows."""


@dataclass(frozen=True)
class Columns(ABC):
    """Rows with named columns; `source` and `target` make them parallel, `label` labelled, `text` alone documents.

    What can be read by a name of its own (a path, a split) is called a part.
    """

    path: str
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
        check_share(self.valid_share)

    what_path_is: ClassVar[str] = "a file, a folder or a pattern"

    @abstractmethod
    def records(self, part: str) -> Iterator[tuple[str, Record | BadRow]]:
        """What there is to read in a part, each record with its place; or what is wrong with it."""

    @property
    @abstractmethod
    def parts(self) -> tuple[str, str | None]:
        """The part that is trained on, and the one that validates; None if rows of the first are held out."""

    @property
    def yields(self) -> Kind:
        if self.source is not None:
            return "parallel"
        return "documents" if self.label is None else "labelled"

    @property
    def sides(self) -> int | None:
        """How many of a row's first texts tell it from others; None: all. Of pairs that are held out the first, which
        often occurs in several of them."""
        held_out = self.yields == "labelled" and self.parts[1] is None
        return 1 if held_out or self.yields == "parallel" else None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns with text."""
        names = (self.source, self.target) if self.source is not None else (self.text, self.text_b)
        return tuple(name for name in names if name is not None)

    def read(self, part: str) -> Iterator[Row]:
        """The good rows of a part; DataError at the first bad one, unless bad ones are skipped."""
        good, first, bad = 0, "", 0
        for where, record in self.records(part):
            row = self.checked(where, record)
            if isinstance(row, Row):
                good += 1
                yield row
            else:
                first, bad = first or row, bad + 1
        if bad and not good:
            raise DataError(f"{part}: all {bad:,} rows are bad; the first: {first}")
        self.skipped[part] = (bad, first)

    @cached_property
    def skipped(self) -> dict[str, tuple[int, str]]:
        """Bad rows per part at its last complete reading, and the first of them."""
        return {}

    def checked(self, where: str, record: Record | BadRow) -> Row | str:
        """The row of a record; where bad rows are skipped, or what is wrong with it; else DataError."""
        try:
            if isinstance(record, BadRow):
                raise record
            return self._row(record, where)
        except BadRow as error:
            if self.on_bad_row == "error":
                raise DataError(f"{where}: {error}", "data.on_bad_row=skip leaves such rows out") from None
            return f"{where}: {error}"

    def _row(self, record: Record, where: str) -> Row:
        texts = [text_of(record, name) for name in self.columns]
        if self.yields == "documents":
            value = value_of(record, self.text)
            given = [str(part).strip() for part in value] if isinstance(value, list) else split_sentences(texts[0])
            return Row([sentence for sentence in given if sentence], None, where)
        if self.label is None:
            return Row(texts, None, where)
        label = value_of(record, self.label)
        if label is None or label == "":
            raise BadRow(f"column {self.label!r} is empty")
        return Row(texts, label if isinstance(label, list) else plain(label), where)

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
        """The rows of one split; DataError if one is bad, with its place."""
        return self._partition.rows(split)

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
    """Rows of files with named columns."""

    valid_path: Optional[str] = None

    @abstractmethod
    def in_file(self, path: Path) -> Iterator[tuple[str, Record | BadRow]]:
        """The records of one file, each with its place `file:line`; or what is wrong with it."""

    @property
    @abstractmethod
    def suffixes(self) -> tuple[str, ...]:
        """What its files are called, for finding them in a folder."""

    @property
    def parts(self) -> tuple[str, str | None]:
        return self.path, self.valid_path

    def records(self, part: str) -> Iterator[tuple[str, Record | BadRow]]:
        for file in self.files(part):
            yield from self.in_file(file)

    def files(self, path: str) -> list[Path]:
        """The files that `path` means, sorted."""
        if not Path(path).is_dir():
            return text_files(path)
        found = sorted(file for file in Path(path).rglob("*") if file.is_file() and self._fits(file.name))
        if not found:
            raise DataError(f"{path} has no file that ends with {', '.join(self.suffixes)}")
        return found

    def _fits(self, name: str) -> bool:
        return name.removesuffix(".gz").removesuffix(".zst").endswith(self.suffixes)

    def fingerprint(self) -> Mapping[str, Any]:
        """File contents (not their names), which columns are read, and how rows are split."""
        valid = self.valid_share if self.valid_path is None else fingerprint(self.files(self.valid_path))
        return {
            "source": type(self).__name__,
            "version": VERSION,
            "files": fingerprint(self.files(self.path)),
            "columns": [self.text, self.text_b, self.label, self.source, self.target],
            "valid": valid,
            "on_bad_row": self.on_bad_row,
        }
