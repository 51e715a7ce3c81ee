"""`data=parallel`: a text and its translation in two files, line by line, or in two columns of one file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar, Optional

from lmctl.core.batch import Kind, Row, Split
from lmctl.core.errors import DataError
from lmctl.data.reading import fingerprint, lines, text_files
from lmctl.data.row_split import RowPartition, partition
from lmctl.data.split import check_share

VERSION = 2
"""Raise it when the same files and options begin to yield other rows."""


@dataclass(frozen=True)
class Parallel:
    """Line i of `target` translates line i of `source`; or `path` has both, separated by a tab."""

    source: Optional[str] = None
    target: Optional[str] = None
    path: Optional[str] = None
    valid_source: Optional[str] = None
    valid_target: Optional[str] = None
    valid_path: Optional[str] = None
    valid_share: float = 0.05
    on_bad_row: str = "error"

    yields: ClassVar[Kind] = "parallel"

    def __post_init__(self) -> None:
        if (self.source is None) != (self.target is None) or (self.source is None) == (self.path is None):
            raise ValueError("source and target must name two files, or path one file with two columns")
        if (self.valid_source is None) != (self.valid_target is None):
            raise ValueError("valid_source and valid_target are the two sides of the validation text: give both")
        if self.on_bad_row not in ("error", "skip"):
            raise ValueError(f"on_bad_row must be error or skip, got {self.on_bad_row!r}")
        check_share(self.valid_share)

    def _files(self, split: Split) -> list[Path]:
        """Two files, or one; none if validation rows are held out."""
        names = (self.source, self.target, self.path)
        if split == "valid":
            names = (self.valid_source, self.valid_target, self.valid_path)
        found = []
        for name in filter(None, names):
            files = text_files(name)
            if len(files) != 1:
                raise DataError(f"{name} means {len(files)} files, and one is wanted for each side")
            found.append(files[0])
        return found

    def _read(self, split: Split) -> Iterator[Row]:
        files = self._files(split)
        bad, first = 0, ""
        rows = _two_files(*files) if len(files) == 2 else _two_columns(files[0])
        for where, texts in rows:
            problem = _problem(texts)
            if problem is None:
                yield Row([" ".join(text.split()) for text in texts], None, where)
            elif self.on_bad_row == "error":
                raise DataError(f"{where}: {problem}", "data.on_bad_row=skip leaves such rows out")
            else:
                bad, first = bad + 1, first or f"{where}: {problem}"
        self.skipped[split] = (bad, first)

    @cached_property
    def skipped(self) -> dict[str, tuple[int, str]]:
        """Bad rows per split at its last complete reading, and the first of them."""
        return {}

    @cached_property
    def _partition(self) -> RowPartition:
        name = self.path or f"{self.source} and {self.target}"
        read_valid = (lambda: self._read("valid")) if self._files("valid") else None
        return partition(lambda: self._read("train"), self.valid_share, name, 1, read_valid)

    def rows(self, split: Split) -> Iterator[Row]:
        """The rows of one split; DataError if the files differ in length or a side is empty, with file and line."""
        return self._partition.rows(split)

    def fingerprint(self) -> Mapping[str, Any]:
        """File contents (not their names) and how rows are split."""
        valid = [fingerprint([file]) for file in self._files("valid")]
        return {
            "source": "parallel",
            "version": VERSION,
            "files": [fingerprint([file]) for file in self._files("train")],
            "valid": valid or self.valid_share,
            "on_bad_row": self.on_bad_row,
        }

    def describe(self) -> str:
        """One line: files, rows, bad rows."""
        text = f"{self.path or f'{self.source} -> {self.target}'}: {self._partition}"
        for bad, first in self.skipped.values():
            text += f"; {bad:,} bad row{'s' * (bad != 1)} skipped, the first: {first}" if bad else ""
        return text


def _two_files(source: Path, target: Path) -> Iterator[tuple[str, list[str]]]:
    counts = [0, 0]
    for number, texts in enumerate(zip_longest(lines(source), lines(target)), start=1):
        if None in texts:
            counts = [sum(1 for _ in lines(file)) for file in (source, target)]
            raise DataError(
                f"{source} has {counts[0]:,} lines and {target} has {counts[1]:,}: so their lines do not match",
                "align them, or give one file with both columns: data.path=",
            )
        yield f"{source}:{number}", [str(text) for text in texts]


def _two_columns(path: Path) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(lines(path), start=1):
        if line.strip():
            yield f"{path}:{number}", line.split("\t")


def _problem(texts: list[str]) -> str | None:
    if len(texts) != 2:
        return f"{len(texts)} columns, and two are wanted (separated by a tab)"
    side = next((name for name, text in zip(("source", "target"), texts, strict=True) if not text.strip()), None)
    return None if side is None else f"the {side} side is empty"
