"""Reading rows of parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lmctl.core import progress
from lmctl.core.errors import DataError
from lmctl.data.records import BadRow, Record, outermost

ROWS_AT_ONCE = 1_000
"""Batch size, small because a file of some kilobytes may decode to gigabytes."""

_MAGIC = b"PAR1"


def is_parquet(path: Path) -> bool:
    """Whether a file is parquet, by its magic bytes, or else by its name."""
    try:
        with open(path, "rb") as file:
            return file.read(4) == _MAGIC or path.name.lower().endswith(".parquet")
    except OSError:  # reported when it is read
        return False


def parquet_records(path: Path, wanted: Sequence[str]) -> Iterator[tuple[str, Record | BadRow]]:
    """The records of one file with the columns `wanted` (all columns, if one of these is missing), each with its
    position."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        size = path.stat().st_size
        with ParquetFile(path) as file:
            whole, reported = max(1, file.metadata.num_rows), 0
            columns = _columns(path, file.schema_arrow.names, wanted)
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
                for record in _records(batch):
                    number += 1
                    yield f"{path}: row {number}", record
                reported, before = size * number // whole, reported
                progress.advance(reported - before)
    except (ArrowException, OSError, ValueError, OverflowError) as error:  # ValueError: column names that are not UTF-8
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        what = "cannot be read" if isinstance(error, PermissionError) else "is damaged, or no parquet file"
        raise DataError(f"{path} {what}: {line}") from error


def _columns(path: Path, there: Sequence[str], wanted: Sequence[str]) -> list[str] | None:
    """The top-level columns that contain the wanted ones."""
    found: dict[str, None] = {}
    for name in wanted:
        if (outer := outermost(name, there)) is None:
            return None
        if (count := there.count(outer)) > 1:
            raise DataError(f"{path}: {count} columns are called {outer!r}", "give them different names")
        found[outer] = None
    return list(found)


def _records(batch: Any) -> Iterator[Record | BadRow]:
    """The rows of a batch; one without a Python value (text that is not UTF-8, a date out of range) is bad."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):
        for place in range(len(batch)):
            try:
                yield batch.slice(place, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield BadRow("a text that is not UTF-8")
            except (ValueError, OverflowError) as error:
                yield BadRow(str(error).splitlines()[0])
