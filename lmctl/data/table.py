"""`data=table`: rows with columns in csv, tsv or parquet files."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from lmctl.core.errors import DataError
from lmctl.data.columns import ColumnSource
from lmctl.data.dialect import DELIMITERS, LONGEST, Dialect, RowLines, detect, reader, sample
from lmctl.data.files import COMPRESSED_SUFFIXES
from lmctl.data.parquet import is_parquet, parquet_records
from lmctl.data.reading import lines
from lmctl.data.records import BadRow, Record

NOT_TABLES = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "JSON is read by data=jsonl"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save the sheet as csv, in UTF-8"),
    **dict.fromkeys((".arrow", ".feather"), "a directory of save_to_disk is read by data=hub; else write parquet"),
}
"""Hints for files of other formats."""


@dataclass(frozen=True)
class Table(ColumnSource):
    """Tables; text formats plain, .gz or .zst. Without a header columns are named 0, 1, ..."""

    delimiter: str = "auto"
    quoting: str = "auto"
    header: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.delimiter not in ("auto", *DELIMITERS):
            raise ValueError(f"delimiter must be one of auto, {', '.join(DELIMITERS)}, got {self.delimiter!r}")
        if self.quoting not in ("auto", "none", "csv"):
            raise ValueError(f"quoting must be one of auto, none, csv, got {self.quoting!r}")

    option: ClassVar[str] = "table"

    @property
    def suffixes(self) -> tuple[str, ...]:
        return (".csv", ".tsv", ".parquet")

    @property
    def other_reading(self) -> str:  # type: ignore[override]
        return ", or data.header=false if the first line is a row" if self.header else ", or data.header=true"

    def fingerprint(self) -> dict[str, object]:
        """As for any file with columns, the dialect settings, and the suffixes, which affect detection."""
        files = [file for part in self.parts if part is not None for file in self.files(part)]
        kinds = [self.delimiter, self.quoting, self.header, [suffix(file) for file in files]]
        return {**super().fingerprint(), "format": kinds}

    def in_file(self, path: Path) -> Iterator[tuple[str, Record | BadRow]]:
        if hint := NOT_TABLES.get(suffix(path)):
            raise DataError(f"{path} is no csv, tsv or parquet file, as its name says", hint)
        if is_parquet(path):
            return parquet_records(path, self.wanted)
        return self.in_lines(lines(path), str(path))

    def in_lines(self, text: Iterator[str], name: str) -> Iterator[tuple[str, Record | BadRow]]:
        """The records in the lines of a file or stream `name`, each with its position."""
        head, whole = sample(text)
        how = detect(head, whole, suffix(Path(name)), self.wanted if self.header else (), self.delimiter, self.quoting)
        of_row = RowLines(chain(head, text))
        rows = reader(of_row, how, strict=True)
        names: list[str] | None = None
        while True:
            begin = rows.line_num + 1
            try:
                cells = next(rows, None)
            except csv.Error as error:
                raise _malformed_quotes(f"{name}:{begin}", error) from None
            of_row.row_read()
            if cells is None:
                return
            if not cells or (len(cells) == 1 and not cells[0].strip()):  # a blank line
                continue
            if names is None:
                names = (
                    _names(f"{name}:{begin}", cells, self.wanted) if self.header else list(map(str, range(len(cells))))
                )
                if self.header:
                    continue
            yield f"{name}:{begin}", _record(names, cells) or BadRow(*self._wrong_width(names, cells, how))

    def _wrong_width(self, names: Sequence[str], cells: Sequence[str], how: Dialect) -> tuple[str, str | None]:
        """The problem of a row with another number of cells, and a possible remedy."""
        hint = None
        if not how.quoted and self.quoting == "auto" and any('"' in cell for cell in cells):
            hint = "data.quoting=csv if cells stand in quotes"
        elif self.delimiter == "auto":
            others = ", ".join(name for name in DELIMITERS if name != how.name)
            hint = f"data.delimiter={others.replace(', ', '|')} if cells do not end at a {how.name}"
        return f"{len(cells)} cell{'s' * (len(cells) != 1)}, and there are {len(names)} columns", hint


def suffix(path: Path) -> str:
    """Suffix of a file name in lower case, without .gz and .zst."""
    name = path.name.lower()
    for packed in COMPRESSED_SUFFIXES:
        name = name.removesuffix(packed)
    return Path(name).suffix


def _names(where: str, cells: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The names in a header; DataError if a wanted one occurs twice."""
    names = [cell.strip() for cell in cells]
    for name in wanted:
        if (count := names.count(name)) > 1:
            raise DataError(f"{where}: {count} columns are called {name!r}", "give them different names")
    return names


def _record(names: Sequence[str], cells: list[str]) -> dict[str, Any] | None:
    """The cells by name; None if there are too few, or extra ones that are not empty."""
    if len(cells) < len(names) or any(cells[len(names) :]):
        return None
    return dict(zip(names, cells, strict=False))


def _malformed_quotes(where: str, error: csv.Error) -> DataError:
    """The error for malformed quotes, after which the start of the next row is unknown."""
    known = {
        "unexpected end of data": "a cell begins with a quote that is never closed",
        "field larger than field limit": f"a row of more than {LONGEST:,} characters: its quote is never closed",
        "expected after": 'a cell goes on behind its closing quote (a quote inside is doubled: "")',
    }
    text = next((words for part, words in known.items() if part in str(error)), str(error))
    return DataError(f"{where}: {text}", "data.quoting=none if a quote is a character like any other")
