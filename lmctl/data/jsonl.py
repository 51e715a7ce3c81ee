"""`data=jsonl`: one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lmctl.core.errors import DataError
from lmctl.data.columns import ColumnSource
from lmctl.data.reading import lines
from lmctl.data.records import BadRow, Record


@dataclass(frozen=True)
class JsonLines(ColumnSource):
    """Objects whose keys are columns (`a.b` for a key inside a nested object); plain, .gz or .zst."""

    option: ClassVar[str] = "jsonl"

    @property
    def suffixes(self) -> tuple[str, ...]:
        return (".jsonl", ".ndjson", ".json")

    def in_file(self, path: Path) -> Iterator[tuple[str, Record | BadRow]]:
        if path.name.lower().removesuffix(".gz").removesuffix(".zst").endswith((".csv", ".tsv", ".parquet")):
            raise DataError(f"{path} is no JSON, as its name says", "csv, tsv and parquet are read by data=table")
        return self.in_lines(lines(path), str(path))

    def in_lines(self, text: Iterator[str], name: str) -> Iterator[tuple[str, Record | BadRow]]:
        """The records in the lines of a file or stream `name`, each with its position."""
        begun = False
        for number, line in enumerate(text, start=1):
            if stripped := line.strip():
                if not begun:
                    _check_first(name, stripped)
                begun = True
                yield f"{name}:{number}", _object(line)


def _check_first(name: str, line: str) -> None:
    """DataError if a file is not JSON lines: one JSON value over several lines, or a list of objects."""
    listed = line == "[" or line.startswith("[{")
    if listed or line == "{":
        what = "a list" if listed else "objects over several lines"
        each = ".[]" if listed else "."
        raise DataError(
            f"{name} is {what} in JSON, and one object per line is wanted",
            f"jq -c '{each}' {Path(name).name} > {Path(name).stem}.jsonl writes it so",
        )


def _object(line: str) -> Record | BadRow:
    try:
        value = json.loads(line)
    except RecursionError:
        return BadRow("JSON nested too deeply")
    except ValueError as error:
        return BadRow(f"not JSON ({error})")
    return value if isinstance(value, dict) else BadRow(f"not a JSON object but {type(value).__name__}")
