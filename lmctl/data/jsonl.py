"""`data=jsonl`: one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lmctl.data.columns import ColumnSource
from lmctl.data.reading import lines
from lmctl.data.records import BadRow, Record


@dataclass(frozen=True)
class JsonLines(ColumnSource):
    """Objects whose keys are columns (`a.b` for a key inside a nested object); plain, .gz or .zst."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        return (".jsonl", ".ndjson", ".json")

    def in_file(self, path: Path) -> Iterator[tuple[str, Record | BadRow]]:
        return self.in_lines(lines(path), str(path))

    def in_lines(self, text: Iterator[str], name: str) -> Iterator[tuple[str, Record | BadRow]]:
        """The records in the lines of `name`, whatever they come from, each with its place."""
        for number, line in enumerate(text, start=1):
            if line.strip():
                yield f"{name}:{number}", _object(line)


def _object(line: str) -> Record | BadRow:
    try:
        value = json.loads(line)
    except ValueError as error:
        return BadRow(f"not JSON ({error})")
    return value if isinstance(value, dict) else BadRow(f"not a JSON object but {type(value).__name__}")
