"""Rows with named columns, whatever file they come from: which columns are read decides what the rows are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

from lmctl.core.errors import ConfigError, DataError
from lmctl.core.suggest import did_you_mean
from lmctl.core.types import Kind, Row, Split
from lmctl.data.reading import fingerprint, text_files
from lmctl.data.row_split import RowPartition, partition
from lmctl.data.sentences import split_sentences
from lmctl.data.split import check_share

Record = Mapping[str, Any]
VERSION = 1
"""Raise it when the same files and options begin to yield other rows."""


class BadRow(Exception):
    """What is wrong with one row, in words that follow its place."""


@dataclass(frozen=True)
class ColumnSource(ABC):
    """Rows of files with named columns; `source` and `target` make them parallel, `label` labelled, `text` alone
    documents."""

    path: str
    text: str = "text"
    text_b: Optional[str] = None
    label: Optional[str] = None
    source: Optional[str] = None
    target: Optional[str] = None
    valid_path: Optional[str] = None
    valid_share: float = 0.05
    on_bad_row: str = "error"

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path must name a file, a folder or a pattern")
        if self.on_bad_row not in ("error", "skip"):
            raise ValueError(f"on_bad_row must be error or skip, got {self.on_bad_row!r}")
        if (self.source is None) != (self.target is None):
            raise ValueError("source and target are two columns of parallel text: give both")
        if self.source is not None and self.label is not None:
            raise ValueError("label and source exclude each other: rows are labelled or parallel")
        if self.text_b is not None and self.label is None:
            raise ValueError("text_b is the second text of labelled pairs: give label as well")
        check_share(self.valid_share)

    @abstractmethod
    def records(self, path: Path) -> Iterator[tuple[str, Record | BadRow]]:
        """The rows of one file, each with its place `file:line`; or what is wrong with it."""

    @property
    @abstractmethod
    def suffixes(self) -> tuple[str, ...]:
        """What its files are called, for finding them in a folder."""

    @property
    def yields(self) -> Kind:
        if self.source is not None:
            return "parallel"
        return "documents" if self.label is None else "labelled"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns with text."""
        names = (self.source, self.target) if self.source is not None else (self.text, self.text_b)
        return tuple(name for name in names if name is not None)

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

    def read(self, path: str) -> Iterator[Row]:
        """The good rows of all files; DataError at the first bad one, unless bad ones are skipped."""
        good, first, bad = 0, "", 0
        for file in self.files(path):
            for where, record in self.records(file):
                try:
                    if isinstance(record, BadRow):
                        raise record
                    row = self._row(record, where)
                except BadRow as error:
                    if self.on_bad_row == "error":
                        raise DataError(f"{where}: {error}", "data.on_bad_row=skip leaves such rows out") from None
                    first, bad = first or f"{where}: {error}", bad + 1
                else:
                    good += 1
                    yield row
        if bad and not good:
            raise DataError(f"{path}: all {bad:,} rows are bad; the first: {first}")
        self.skipped[path] = (bad, first)

    @cached_property
    def skipped(self) -> dict[str, tuple[int, str]]:
        """Bad rows per path at its last complete reading, and the first of them."""
        return {}

    def _row(self, record: Record, where: str) -> Row:
        texts = [_text(record, name) for name in self.columns]
        if self.yields == "documents":
            value = record[self.text]
            given = [str(part).strip() for part in value] if isinstance(value, list) else split_sentences(texts[0])
            return Row([sentence for sentence in given if sentence], None, where)
        if self.label is None:
            return Row(texts, None, where)
        label = _value(record, self.label)
        if label is None or label == "":
            raise BadRow(f"column {self.label!r} is empty")
        return Row(texts, label if isinstance(label, list) else _plain(label), where)

    @cached_property
    def _partition(self) -> RowPartition:
        sides = 1 if self.yields == "parallel" else 2
        valid = None if self.valid_path is None else self.valid_path
        read_valid = None if valid is None else (lambda: self.read(valid))
        return partition(lambda: self.read(self.path), self.valid_share, self.path, sides, read_valid)

    def rows(self, split: Split) -> Iterator[Row]:
        """The rows of one split; DataError if one is bad, with its file and line."""
        return self._partition.rows(split)

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

    def describe(self) -> str:
        """One line: columns, rows, bad rows."""
        names = ", ".join([*self.columns, *([f"label {self.label}"] if self.label else [])])
        text = f"{self.path}: {names}; {self._partition}"
        bad = sum(count for count, _ in self.skipped.values())
        if bad:
            first = next(first for count, first in self.skipped.values() if count)
            text += f"; {bad:,} bad row{'s' * (bad != 1)} skipped, the first: {first}"
        return text


def _value(record: Record, name: str) -> Any:
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):  # a.b: inside a nested object
        if not isinstance(value, Mapping) or part not in value:
            raise ConfigError(
                f"no column {name!r}{did_you_mean(name, record)}", f"columns: {', '.join(map(str, record))}"
            )
        value = value[part]
    return value


def _text(record: Record, name: str) -> str:
    value = _value(record, name)
    if isinstance(value, list):
        value = " ".join(str(part) for part in value)
    if not isinstance(value, str):
        raise BadRow(f"column {name!r} is {'empty' if value is None else 'not text'}")
    text = " ".join(value.split())
    if not text:
        raise BadRow(f"column {name!r} is empty")
    return text


def _plain(label: Any) -> str | float:
    if isinstance(label, bool):
        return str(label).lower()
    return float(label) if isinstance(label, (int, float)) else str(label).strip()
