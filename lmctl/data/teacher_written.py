"""A source with teacher-generated training text, read from a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmctl.core.batch import Kind, Row, Split
from lmctl.data.base import Source
from lmctl.data.file_status import FileStates, states
from lmctl.data.files import unreadable


@dataclass(frozen=True)
class Written(Source):
    """Training rows from `path`, one JSON list of texts per line; everything else from `original`."""

    original: Source
    path: Path
    by: Mapping[str, Any]
    """JSON values: the settings that the file was generated with."""

    @property
    def yields(self) -> Kind:
        return self.original.yields

    def rows(self, split: Split) -> Iterator[Row]:
        """The rows of one split."""
        if split == "valid":
            yield from self.original.rows("valid")
            return
        try:
            with open(self.path, encoding="utf-8") as lines:
                for number, line in enumerate(lines, start=1):
                    yield Row(json.loads(line), None, f"{self.path}:{number}")
        except OSError as error:  # a cleaner of the cache removed it
            raise unreadable(self.path, error) from error

    def state(self) -> FileStates:
        return (*states([self.path]), *self.original.state())

    def fingerprint(self) -> Mapping[str, Any]:
        """The settings of the generation, and the original data."""
        return {"source": "written", "by": dict(self.by), "original": dict(self.original.fingerprint())}

    def describe(self) -> str:
        return f"written by the teacher, from: {self.original.describe()}"
