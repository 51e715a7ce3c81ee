"""`data=table`: rows with columns in csv, tsv or parquet files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from lmctl.core.errors import DataError
from lmctl.data.columns import ColumnSource
from lmctl.data.reading import lines
from lmctl.data.records import BadRow, Record

DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";", "bar": "|"}


@dataclass(frozen=True)
class Table(ColumnSource):
    """Tables; those of text plain, .gz or .zst. Without a header columns are called 0, 1, ..."""

    delimiter: str = "auto"
    quoting: str = "auto"
    header: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.delimiter not in ("auto", *DELIMITERS):
            raise ValueError(f"delimiter must be one of auto, {', '.join(DELIMITERS)}, got {self.delimiter!r}")
        if self.quoting not in ("auto", "none", "csv"):
            raise ValueError(f"quoting must be one of auto, none, csv, got {self.quoting!r}")

    @property
    def suffixes(self) -> tuple[str, ...]:
        return (".csv", ".tsv", ".parquet")

    def fingerprint(self) -> dict[str, object]:
        """As for any file with columns, and how its text is cut into cells."""
        return {**super().fingerprint(), "format": [self.delimiter, self.quoting, self.header]}

    def in_file(self, path: Path) -> Iterator[tuple[str, Record | BadRow]]:
        return _parquet(path) if path.name.endswith(".parquet") else self.in_lines(lines(path), str(path))

    def in_lines(self, text: Iterator[str], name: str) -> Iterator[tuple[str, Record | BadRow]]:
        """The records in the lines of `name`, whatever they come from, each with its place."""
        head = list(islice(text, 1))
        delimiter = DELIMITERS.get(self.delimiter) or max(DELIMITERS.values(), key=("".join(head)).count)
        # In the tables of GLUE and its kin a " is a character like any other.
        quoted = self.quoting == "csv" or (self.quoting == "auto" and delimiter != "\t")
        rows = csv.reader(
            (f"{line}\n" for line in chain(head, text)),
            delimiter=delimiter,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
            strict=quoted,
        )
        names: list[str] | None = None
        while True:
            try:
                cells = next(rows, None)
            except csv.Error as error:
                raise DataError(
                    f"{name}:{rows.line_num}: {error}", "data.quoting=none if a quote is a character"
                ) from None
            if cells is None:
                return
            if names is None:
                names = cells if self.header else [str(number) for number in range(len(cells))]
                if self.header:
                    continue
            if cells:
                yield f"{name}:{rows.line_num}", _record(names, cells)


def _record(names: list[str], cells: list[str]) -> Record | BadRow:
    if len(cells) != len(names):
        return BadRow(f"{len(cells)} cells, and there are {len(names)} columns")
    return dict(zip(names, cells, strict=True))


def _parquet(path: Path) -> Iterator[tuple[str, Record | BadRow]]:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        batches = ParquetFile(path).iter_batches()
        for number, record in enumerate(chain.from_iterable(batch.to_pylist() for batch in batches), start=1):
            yield f"{path}: row {number}", record
    except ArrowInvalid as error:
        raise DataError(f"{path} is not a parquet file: {error}") from error
