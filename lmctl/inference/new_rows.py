"""Reading unlabelled rows with the same readers as training data (`lmctl.data`).

A table or jsonl file has named columns. A line of text is a row of one column or, if the model reads pairs, of two
separated by a tab; an empty line is an empty row, without prediction and without error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

from lmctl.core.errors import ConfigError, DataError
from lmctl.data.columns import Columns
from lmctl.data.jsonl import JsonLines
from lmctl.data.reading import aligned_lines
from lmctl.data.records import BadRow, NoColumn, Record, texts_of
from lmctl.data.table import Table, suffix
from lmctl.inference.input_lines import STANDARD_INPUT, Placed, comes_once, files_once, first_not_blank

Records: TypeAlias = "Iterator[tuple[str, Record | BadRow]]"
"""Records with their positions; or the error of a bad one."""

TEXT, TEXT_B = "text", "text_b"
"""Default column names."""
AUTO = "auto"
_OBJECT = re.compile(r'\s*\{\s*["}]')
"""Matches the start of a JSON object. If the rest is invalid it is a bad row, not a line of text."""


class NewRow(NamedTuple):
    """One row of the input."""

    where: str
    """`file:line`, for messages."""
    record: Record
    """All its columns; empty for an empty line or a bad row."""
    texts: list[str]
    """The texts for the model; empty: no prediction."""
    wrong: str = ""
    """The error of a bad row; empty for an empty line."""


@dataclass(frozen=True)
class NewRows:
    """The input and the columns that are read."""

    file: str | None
    """A file or a glob pattern."""
    kind: str = AUTO
    """table, jsonl or lines; auto: by the file name, or the first line of standard input."""
    text: str | None = None
    text_b: str | None = AUTO
    skip: bool = False
    """Whether a bad row becomes a row without texts instead of an error."""
    learnt: object = None
    """The training source of the model, whose columns and dialect these rows share."""
    stream: Iterator[Placed] | None = None
    """The lines of standard input, for rows from there."""
    say: Callable[[str], None] = print
    """Receives one line about what was detected."""

    def __iter__(self) -> Iterator[NewRow]:
        """The rows in order. DataError with its position at the first bad one, unless bad rows are skipped."""
        for kind, records in self._parts():
            yield from self._read(kind, records)

    def count(self) -> int:
        """Number of rows, bad ones included; 0: not known, because the input can be read once only."""
        if self.stream is not None or comes_once(self.file):
            return 0
        return sum(1 for _ in replace(self, skip=True, say=lambda _: None))

    def _parts(self) -> Iterator[tuple[str, Records]]:
        """Each file, or standard input, with its format."""
        if self.stream is None:
            yield from map(self._file, files(str(self.file)))
            return
        kind, stream = self.kind, self.stream
        if kind == AUTO:
            first, stream = first_not_blank(stream)
            kind = "lines" if first is None else self._guess(first)
        if kind == "lines":
            yield kind, _of_lines(stream)
        else:
            reader = self._table() if kind == "table" else JsonLines(STANDARD_INPUT).with_all_columns()
            # Files with columns may have lines that end in \r.
            parts = (part for line in stream for part in line.text.split("\r"))
            yield kind, reader.in_lines(parts, "standard input")

    def _guess(self, first: Placed) -> str:
        """Detect the format of standard input by its first line: a jsonl object, a table header, or text."""
        if _OBJECT.match(first.text):
            return "jsonl"
        columns = self.learnt if isinstance(self.learnt, Columns) else None
        text = self.text or (columns.text if columns else TEXT)
        cells = [cell.strip().strip('"') for cell in re.split("[\t,;|]", first.text)]
        if len(cells) > 1 and text in cells:
            self.say(f"{first.where}: the header of a table, by its column {text!r} (input=lines: a text)")
            return "table"
        return "lines"

    def _file(self, path: Path) -> tuple[str, Records]:
        known = {"table": self._table(), "jsonl": JsonLines(str(path)).with_all_columns()}
        kind = self.kind
        if kind == AUTO:
            kind = next((name for name, reader in known.items() if suffix(path) in reader.suffixes), "lines")
        if kind == "lines":
            name = str(path)
            return kind, _of_lines(Placed(f"{name}:{n}", line) for n, line in enumerate(aligned_lines(path), start=1))
        return kind, known[kind].in_file(path)

    def _table(self) -> Table:
        """A reader with the dialect of the tables that the model was trained on."""
        ours = Table(STANDARD_INPUT).with_all_columns()
        if not isinstance(self.learnt, Table):
            return ours
        return replace(ours, delimiter=self.learnt.delimiter, quoting=self.learnt.quoting, header=self.learnt.header)

    def _read(self, kind: str, records: Records) -> Iterator[NewRow]:
        names: list[str] | None = None
        for where, record in records:
            if names is None and not isinstance(record, BadRow):
                if kind == "lines" and not record[TEXT].strip():
                    yield NewRow(where, {}, [])
                    continue
                names = self._names(kind, record, where)
            yield self._row(kind, where, record, names or [])

    def _names(self, kind: str, first: Record, where: str) -> list[str]:
        """The columns to read, by the first row; ConfigError if it lacks them."""
        columns = self.learnt if isinstance(self.learnt, Columns) else None
        text = self.text or (columns.text if columns else TEXT)
        text_b = self.text_b
        if text_b == AUTO and columns is not None:
            text_b = columns.text_b
        elif text_b == AUTO and kind == "lines":
            sides = first[TEXT].split("\t")
            text_b = TEXT_B if len(sides) == 2 and all(side.strip() for side in sides) else None
            if text_b is not None:
                self.say(f"{where}: a tab, so lines are pairs of texts (text_b=null: single texts)")
        elif text_b == AUTO:
            text_b = TEXT_B if TEXT_B in first else None
        names = [text] if text_b is None else [text, text_b]
        if kind != "lines":
            for key, name in zip((TEXT, TEXT_B), names, strict=False):
                _check_column(first, name, key, where)
        return names

    def _row(self, kind: str, where: str, record: Record | BadRow, names: list[str]) -> NewRow:
        wrong: object = record
        if not isinstance(record, BadRow):
            try:
                if kind == "lines":
                    if not record[TEXT].strip():
                        return NewRow(where, {}, [])
                    record = _split_tab(record[TEXT], names)
                return NewRow(where, record, [_text(record, name) for name in names])
            except BadRow as error:
                wrong = error
        if not self.skip:
            raise DataError(f"{where}: {wrong}", "on_bad_row=skip gives such rows an empty answer") from None
        return NewRow(where, {} if isinstance(record, BadRow) else record, [], f"{where}: {wrong}")


def files(pattern: str) -> list[Path]:
    """The files at a path or glob pattern; ConfigError for a folder, whose files may be of any format."""
    if Path(pattern).expanduser().is_dir():
        raise ConfigError(f"file={pattern} is a folder", f"a pattern names its files: file='{Path(pattern) / '*.csv'}'")
    return files_once(pattern)


def _of_lines(stream: Iterator[Placed]) -> Records:
    return ((line.where, {TEXT: line.text}) for line in stream)


def _split_tab(line: str, names: list[str]) -> Record:
    """The columns of a line: itself, or its two tab-separated parts."""
    if len(names) == 1:
        return {names[0]: line}
    sides = line.split("\t")
    if len(sides) != 2:
        raise BadRow(f"not a pair: {len(sides) - 1} tabs, and pairs are a<TAB>b")
    return dict(zip(names, sides, strict=True))


def _check_column(record: Record, name: str, key: str, where: str) -> None:
    """ConfigError, with the verb's key, if the first row lacks the column."""
    try:
        texts_of(record, name)
    except NoColumn as error:
        raise ConfigError(f"{where}: {error}", f"{error.columns}; {key}=COLUMN says which") from None
    except BadRow:
        return


def _text(record: Record, name: str) -> str:
    """The text of a column on one line, lists joined; BadRow if it is no text, or empty."""
    return " ".join(texts_of(record, name))
