"""Dialect detection for csv and tsv: the delimiter, and whether cells may be quoted."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from io import StringIO
from typing import Any, NamedTuple

from lmctl.data.reading import LONGEST_LINE

DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";", "bar": "|"}

NONE = "\x1f"
"""The delimiter of a table with one column: a character that no text contains."""

SAMPLE_LINES, SAMPLE_CHARACTERS = 1_000, 1 << 20
"""Size of the sample from the beginning of a file."""

LONGEST = LONGEST_LINE
"""Longest row in characters, also over several lines; a longer one is most likely an unclosed quote."""

_QUOTED = re.compile(r'"(?:[^"]|"")*"')


class Dialect(NamedTuple):
    """How lines are split into cells."""

    delimiter: str
    quoted: bool
    """Whether a cell may be quoted, with doubled quotes inside (RFC 4180)."""
    spaced: bool = False
    """Whether the space after each delimiter is skipped."""

    @property
    def name(self) -> str:
        return next((name for name, sign in DELIMITERS.items() if sign == self.delimiter), "none")


def reader(lines: Iterable[str], how: Dialect, strict: bool) -> Any:
    """`csv.reader` on lines without line ends; with `strict` csv.Error for malformed quotes."""
    csv.field_size_limit(LONGEST)
    return csv.reader(
        (f"{line}\n" for line in lines),
        delimiter=how.delimiter,
        quoting=csv.QUOTE_MINIMAL if how.quoted else csv.QUOTE_NONE,
        skipinitialspace=how.spaced,
        strict=strict and how.quoted,
    )


class RowLines:
    """Lines for a `reader`; csv.Error once those since `row_read` are longer than any row."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._characters = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._characters += len(line)
        if self._characters > LONGEST:
            raise csv.Error("field larger than field limit")
        return line

    def row_read(self) -> None:
        """To be called after each row."""
        self._characters = 0


def sample(lines: Iterator[str]) -> tuple[list[str], bool]:
    """The first lines, and whether these are all."""
    head: list[str] = []
    characters = 0
    for line in lines:
        head.append(line)
        characters += len(line)
        if len(head) == SAMPLE_LINES or characters > SAMPLE_CHARACTERS:
            return head, False
    return head, True


def detect(
    head: Sequence[str],
    whole: bool,
    suffix: str,
    wanted: Sequence[str],
    delimiter: str = "auto",
    quoting: str = "auto",
) -> Dialect:
    """Detect the dialect of a table with the first lines `head` (`whole`: these are all).

    "auto" values are detected: the delimiter whose header has the columns `wanted` (empty: there is no header), or else
    the one with which rows have equally many cells; among several, the one of the `suffix` (.csv, .tsv).
    """
    if any(len(line) > SAMPLE_CHARACTERS for line in head):
        head, whole = [line[:SAMPLE_CHARACTERS] for line in head], False
    expected = {".csv": ",", ".tsv": "\t"}.get(suffix)
    given = DELIMITERS.get(delimiter)
    signs = [given] if given else sorted(DELIMITERS.values(), key=lambda sign: sign != expected)
    found = [Dialect(sign, _quoted(head, whole, sign, quoting), _spaced(head, sign)) for sign in signs]
    if given:
        return found[0]
    rows = {how: _rows(head, whole, how) for how in found}
    names = {how: {cell.strip() for cell in table[0]} if table else set() for how, table in rows.items()}
    several = [how for how in found if rows[how] and len(rows[how][0]) > 1]
    for how in several:
        if wanted and names[how].issuperset(wanted):
            return how
    shares = {how: _uniformity(rows[how]) for how in several}
    alone = Dialect(NONE, quoting == "csv" or (quoting == "auto" and expected != "\t"))
    only = wanted and set(wanted) == {cell.strip() for row in _rows(head[:1], True, alone) for cell in row}
    if only or not several:
        return alone
    return max(several, key=lambda how: (shares[how] > 0.5, shares[how] if shares[how] > 0.5 else len(rows[how][0])))


def _rows(head: Sequence[str], whole: bool, how: Dialect) -> list[list[str]]:
    """The cells of the first lines, without the last row if it may be incomplete."""
    rows: list[list[str]] = []
    with suppress(csv.Error):
        rows.extend(cells for cells in reader(head, how, strict=False) if cells)
    return rows if whole or len(rows) < 2 else rows[:-1]


def _uniformity(rows: Sequence[Sequence[str]]) -> float:
    """Share of rows with the most common number of cells, if that is two or more."""
    (cells, count), *_ = Counter(map(len, rows)).most_common(1)
    return count / len(rows) if cells > 1 else 0.0


def _spaced(head: Sequence[str], sign: str) -> bool:
    first = head[0] if head else ""
    return sign in first and first.count(sign) == first.count(f"{sign} ")


def _quoted(head: Sequence[str], whole: bool, sign: str, quoting: str) -> bool:
    """In tab-separated tables a " is usually an ordinary character (GLUE, for example). It is a quote if the header is
    quoted, or if a csv writer (pandas) would produce exactly these lines."""
    if quoting != "auto" or sign != "\t":
        return quoting != "none"
    if not any('"' in line for line in head):
        return False
    if all(_QUOTED.fullmatch(cell) for cell in head[0].split(sign)):
        return True
    rows: list[list[str]] = []
    try:
        rows.extend(reader(head, Dialect(sign, True), strict=True))
    except csv.Error as error:
        if whole or "unexpected end" not in str(error):  # a quoted cell may continue after the sample
            return False
    written = StringIO()
    csv.writer(written, delimiter=sign, lineterminator="\n").writerows(rows)
    text = written.getvalue()
    return '"' in text and "".join(f"{line}\n" for line in head).startswith(text)
