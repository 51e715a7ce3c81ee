"""Reading rows of parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lmctl.core import progress
from lmctl.core.errors import DataError
from lmctl.data.file_status import not_plain
from lmctl.data.reading import LONGEST_LINE
from lmctl.data.records import BadRow, Record, outermost

ROWS_AT_ONCE = 1_000

MOST_AT_ONCE = 1 << 26
"""Bytes of rows that become Python values at once: a file of some kilobytes may decode to gigabytes."""

MOST_OF_ROW = LONGEST_LINE
"""Bytes that one row may have."""

_MOST_OF_GROUP, _MOST_TIMES = 1 << 29, 200
"""A column of a row group that is larger than this, and so many times larger than in the file, is refused."""

_MAGIC = b"PAR1"


def is_parquet(path: Path) -> bool:
    """Whether a file is parquet, by its magic bytes, or else by its name."""
    try:
        if not_plain(path) is not None:  # what is read of a pipe is gone
            return False
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
            for batch in _batches(path, file, columns):
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


def _batches(path: Path, file: Any, columns: Sequence[str] | None) -> Iterator[Any]:
    """The rows of a file in record batches. Columns whose values are stored once and named often stay so (dictionary
    arrays), where the values are long; this is slower for many short ones."""
    from pyarrow.parquet import ParquetFile

    leaves = [file.schema.column(place) for place in range(len(file.schema))]
    chosen = [
        place
        for place, leaf in enumerate(leaves)
        if columns is None or any(leaf.path == name or leaf.path.startswith(f"{name}.") for name in columns)
    ]
    texts = [leaves[place].path for place in chosen if leaves[place].physical_type == "BYTE_ARRAY"]
    with ParquetFile(path, read_dictionary=texts, pre_buffer=False, buffer_size=1 << 16) as indexed:
        for group in range(file.metadata.num_row_groups):
            chunks = [file.metadata.row_group(group).column(place) for place in chosen]
            for chunk in chunks:
                _refuse_bomb(path, group, chunk)
            first = next(indexed.iter_batches(1, row_groups=[group], columns=columns), None)
            longest = 0 if first is None else max(map(_longest_value, first.columns), default=0)
            most_values = max((chunk.num_values for chunk in chunks), default=0)
            rows = max(1, file.metadata.row_group(group).num_rows)
            average = sum(chunk.total_uncompressed_size for chunk in chunks) // rows
            at_once = min(ROWS_AT_ONCE, max(1, MOST_AT_ONCE // max(1, average)))
            short = longest * max(at_once, most_values if most_values > rows else 0) <= MOST_AT_ONCE
            yield from (file if short else indexed).iter_batches(at_once, row_groups=[group], columns=columns)


def _refuse_bomb(path: Path, group: int, chunk: Any) -> None:
    """DataError if a column of a row group is suspiciously larger than in the file."""
    size = max(chunk.total_uncompressed_size, chunk.num_values if "." in chunk.path_in_schema else 0)
    if size > _MOST_OF_GROUP and size > _MOST_TIMES * chunk.total_compressed_size:
        raise DataError(
            f"{path}: row group {group}, column {chunk.path_in_schema}: {chunk.total_compressed_size:,} bytes that "
            f"become {size:,}",
            "if they are meant, write the file again with smaller row groups",
        )


def _longest_value(array: Any) -> int:
    """Bytes of the longest value that the references in an array may mean; 0 if it has none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(array.type):
        try:
            return pc.max(pc.binary_length(array.dictionary)).as_py() or 0
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid):  # no texts
            return 8
    return max(map(_longest_value, _parts(array)), default=0)


def _parts(array: Any) -> list[Any]:
    """The arrays that a nested array is made of."""
    import pyarrow as pa

    if isinstance(array, pa.ExtensionArray):
        return [array.storage]
    if pa.types.is_struct(array.type):
        return list(array.flatten())
    return [array.flatten()] if isinstance(array, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray) else []


def _size(array: Any) -> int:
    """Bytes that an array takes if each of its references becomes a value of its own; at least those of pointers."""
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        return len(array) * (8 + _longest_value(array))
    parts = _parts(array)
    return 8 * len(array) + (sum(map(_size, parts)) if parts else array.nbytes)


def _records(batch: Any) -> Iterator[Record | BadRow]:
    """The rows of a batch as Python values, no more at once than memory is meant for."""
    size = sum(map(_size, batch.columns))
    if size <= MOST_AT_ONCE and len(batch) > 1:
        yield from _values(batch)
    elif len(batch) > 1:
        half = len(batch) // 2
        yield from _records(batch.slice(0, half))
        yield from _records(batch.slice(half))
    elif len(batch) == 1:
        much = BadRow(f"a row of {size:,} bytes, more than the {MOST_OF_ROW:,} that one may have")
        yield from (_values(batch) if size <= MOST_OF_ROW else iter([much]))


def _values(batch: Any) -> Iterator[Record | BadRow]:
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
