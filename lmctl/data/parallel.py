"""`data=parallel`: parallel text for translation, line-aligned in two files (or several pairs), or in two columns.

Only `\\n` and `\\r\\n` end a line, as for `wc`, `paste`, Moses and sacreBLEU.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any, ClassVar, Optional

from lmctl.core.batch import Kind, Row, Split
from lmctl.core.errors import DataError
from lmctl.core.paths import Place
from lmctl.data.base import Source
from lmctl.data.file_status import FileStates, states
from lmctl.data.reading import aligned_lines, fingerprint, lines, text_files
from lmctl.data.row_split import RowPartition, partition
from lmctl.data.split import check_share

VERSION = 2
"""Version of the reading code: increase it when the same files and options yield other rows."""


@dataclass(frozen=True)
class Parallel(Source):
    """Line i of `target` translates line i of `source`; or `path` has both, separated by a tab."""

    source: Optional[Place] = None
    target: Optional[Place] = None
    path: Optional[Place] = None
    valid_source: Optional[Place] = None
    valid_target: Optional[Place] = None
    valid_path: Optional[Place] = None
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

    def _files(self, split: Split) -> list[list[Path]]:
        """The files of both sides, or those with two columns; [] if validation rows are held out."""
        names = (self.source, self.target, self.path)
        if split == "valid":
            names = (self.valid_source, self.valid_target, self.valid_path)
        sides = [text_files(name) for name in names if name]
        if len(sides) == 2:
            _check_pairs(*sides)
        return sides

    def _read(self, split: Split) -> Iterator[Row]:
        files = self._files(split)
        bad, first = 0, ""
        reads = map(_two_files, *files) if len(files) == 2 else map(_two_columns, files[0])
        rows = chain.from_iterable(reads)
        for where, sides in rows:
            # The output of `paste` has the byte order mark of the second file inside a line.
            texts = [" ".join(side.lstrip("\ufeff").split()) for side in sides]
            problem = _problem(texts)
            if problem is None:
                yield Row(texts, None, where)
            elif self.on_bad_row == "error":
                raise DataError(f"{where}: {problem}", "data.on_bad_row=skip leaves such rows out")
            else:
                bad, first = bad + 1, first or f"{where}: {problem}"
        self.skipped[split] = (bad, first)

    @cached_property
    def skipped(self) -> dict[str, tuple[int, str]]:
        """Number of bad rows per split in its last complete reading, and the first of them."""
        return {}

    @cached_property
    def _partition(self) -> RowPartition:
        name = self.path or f"{self.source} and {self.target}"
        read_valid = (lambda: self._read("valid")) if self._files("valid") else None
        return partition(lambda: self._read("train"), self.valid_share, name, 1, read_valid)

    def rows(self, split: Split) -> Iterator[Row]:
        """The rows of one split; DataError with file and line if the files differ in length or a side is empty."""
        return self._partition.rows(split)

    def state(self) -> FileStates:
        splits: tuple[Split, ...] = ("train", "valid")
        return states(file for split in splits for side in self._files(split) for file in side)

    def fingerprint(self) -> Mapping[str, Any]:
        """File contents (not their names) and how rows are split."""
        valid = [fingerprint(side) for side in self._files("valid")]
        return {
            "source": "parallel",
            "version": VERSION,
            "files": [fingerprint(side) for side in self._files("train")],
            "valid": valid or self.valid_share,
            "on_bad_row": self.on_bad_row,
        }

    @property
    def place(self) -> str | None:
        return self.path

    def describe(self) -> str:
        """One line: files, rows, bad rows."""
        count = len(self._files("train")[0])
        files = f"{count:,} files{'' if self.path else ' a side'}, " if count > 1 else ""
        text = f"{self.path or f'{self.source} -> {self.target}'}: {files}{self._partition}"
        for bad, first in self.skipped.values():
            text += f"; {bad:,} bad row{'s' * (bad != 1)} skipped, the first: {first}" if bad else ""
        return text


_WORD = re.compile(r"\d+|[^\W\d_]+")


def _check_pairs(sources: list[Path], targets: list[Path]) -> None:
    """DataError unless the files of both sides match, in the order of their names."""
    if len(sources) != len(targets):
        raise DataError(
            f"source means {len(sources):,} files and target {len(targets):,}, and each wants a partner",
            f"the first of them: {sources[0]}, {targets[0]}",
        )
    differences = [_difference(source, target) for source, target in zip(sources, targets, strict=True)]
    for source, target, difference in zip(sources, targets, differences, strict=True):
        if difference != differences[0]:
            raise DataError(
                f"{source} and {target} would be read side by side, as the names are sorted, and do not look alike",
                f"name both files of a pair alike, except for the language, as in {sources[0]} and {targets[0]}",
            )


def _difference(source: Path, target: Path) -> set[tuple[str | None, str | None]]:
    """The parts in which two file names differ; empty if they are equal names in two folders."""
    words = [_WORD.findall(file.name) for file in (source, target)]
    return {pair for pair in zip_longest(*words) if pair[0] != pair[1]}


def _two_files(source: Path, target: Path) -> Iterator[tuple[str, list[str]]]:
    number = 0
    for number, texts in enumerate(zip_longest(aligned_lines(source), aligned_lines(target)), start=1):
        if None in texts:
            raise _unequal(source, target, number)
        yield f"{source}:{number}", [str(text) for text in texts]
    if number == 1:
        _check_not_old_mac(source)


def _unequal(source: Path, target: Path, number: int) -> DataError:
    """The error if one file ends before line `number`."""
    counts = [sum(1 for _ in aligned_lines(file)) for file in (source, target)]
    for file, count in zip((source, target), counts, strict=True):
        if count == 1:
            _check_not_old_mac(file)
    longer, shorter = (source, target) if counts[0] > counts[1] else (target, source)
    return DataError(
        f"{source} has {counts[0]:,} lines and {target} has {counts[1]:,}: "
        f"line {number:,} of {longer} has no partner in {shorter}",
        "align them, or give one file with both columns: data.path=",
    )


def _two_columns(path: Path) -> Iterator[tuple[str, list[str]]]:
    number = 0
    for number, line in enumerate(aligned_lines(path), start=1):
        if line.strip():
            yield f"{path}:{number}", line.split("\t")
    if number == 1:
        _check_not_old_mac(path)


def _check_not_old_mac(path: Path) -> None:
    """DataError for a file with old Mac line ends (`\\r`), which `aligned_lines` reads as a single line."""
    if sum(1 for line in islice(lines(path), 3) if line.strip()) > 2:
        raise DataError(
            f"{path} has carriage returns and no line ends, so that all of it is one line",
            f"tr '\\r' '\\n' < {shlex.quote(str(path))} makes lines of it",
        )


def _problem(texts: list[str]) -> str | None:
    if len(texts) != 2:
        return f"{len(texts)} columns, and two are wanted (separated by a tab)"
    side = next((name for name, text in zip(("source", "target"), texts, strict=True) if not text), None)
    return None if side is None else f"the {side} side is empty"
