"""Files of rows with columns, in every format that sources read, and all that a source makes of them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmctl.core.batch import Row
from lmctl.core.errors import LmctlError
from lmctl.data.base import Source


def write(path: Path, content: str | bytes) -> str:
    """A file of this content, and its folder; its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows by the names of their columns, in the format that the suffix says."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return str(path)
    if name.endswith(".jsonl"):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        out = io.StringIO()
        writer = csv.writer(out, delimiter="\t" if name.endswith(".tsv") else ",", lineterminator="\n")
        writer.writerows([list(rows[0]), *(list(row.values()) for row in rows)])
        text = out.getvalue()
    return write(path, gzip.compress(text.encode()) if path.suffix == ".gz" else text)


def halves(source: Source) -> tuple[list[Row], list[Row]]:
    """The rows that train and those that validate."""
    return list(source.rows("train")), list(source.rows("valid"))


def both(source: Source) -> list[Row]:
    train, valid = halves(source)
    return train + valid


def rows(source: Any) -> list[Row]:
    """What stands in the files, whichever half it belongs to."""
    return list(source.read(source.parts[0]))


def texts(source: Any) -> list[str]:
    return [" ".join(row.texts) for row in rows(source)]


def refusal(source: Any) -> LmctlError:
    with pytest.raises(LmctlError) as caught:
        rows(source)
    return caught.value
