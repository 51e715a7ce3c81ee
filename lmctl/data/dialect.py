"""How a table of text is cut into cells: its delimiter, and whether cells stand in quotes."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from io import StringIO
from typing import Any, NamedTuple

DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";", "bar": "|"}

NONE = "\x1f"
"""In place of a delimiter where there is one column: a character that no text has."""

SAMPLE_LINES, SAMPLE_CHARACTERS = 1_000, 1 << 20
"""How much of the beginning of a file is looked at."""

LONGEST = (1 << 27) - 1
"""Characters of a cell; a longer one is most likely a quote that nothing closes."""

_QUOTED = re.compile(r'"(?:[^"]|"")*"')


class Dialect(NamedTuple):
    """How lines become cells."""

    delimiter: str
    quoted: bool
    """Whether a cell may stand in quotes, which are doubled inside it, as csv has it."""
    spaced: bool = False
    """Whether a space follows each delimiter and belongs to no cell."""

    @property
    def name(self) -> str:
        return next((name for name, sign in DELIMITERS.items() if sign == self.delimiter), "none")


def reader(lines: Iterable[str], how: Dialect, strict: bool) -> Any:
    """`csv.reader` on lines without line ends; with `strict` csv.Error for quotes that are not as csv has them."""
    csv.field_size_limit(LONGEST)
    return csv.reader(
        (f"{line}\n" for line in lines),
        delimiter=how.delimiter,
        quoting=csv.QUOTE_MINIMAL if how.quoted else csv.QUOTE_NONE,
        skipinitialspace=how.spaced,
        strict=strict and how.quoted,
    )


def sample(lines: Iterator[str]) -> tuple[list[str], bool]:
    """The first lines, and whether there are no more."""
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
    """The dialect of a table that begins with the lines `head` (`whole`: and has no more).

    What is "auto" is looked for: the delimiter that gives a header with the columns `wanted` (none: there is no
    header), or else lines with equally many cells; if several do, the one that the `suffix` (.csv, .tsv) promises.
    """
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
    shares = {how: _even(rows[how]) for how in several}
    alone = Dialect(NONE, quoting == "csv" or (quoting == "auto" and expected != "\t"))
    only = wanted and set(wanted) == {cell.strip() for row in _rows(head[:1], True, alone) for cell in row}
    if only or not several:
        return alone
    return max(several, key=lambda how: (shares[how] > 0.5, shares[how] if shares[how] > 0.5 else len(rows[how][0])))


def _rows(head: Sequence[str], whole: bool, how: Dialect) -> list[list[str]]:
    """The cells of the first lines; the last row is left out if it may go on."""
    rows: list[list[str]] = []
    with suppress(csv.Error):
        rows.extend(cells for cells in reader(head, how, strict=False) if cells)
    return rows if whole or len(rows) < 2 else rows[:-1]


def _even(rows: Sequence[Sequence[str]]) -> float:
    """Which share of the rows has as many cells as most of them have, if those are two or more."""
    (cells, count), *_ = Counter(map(len, rows)).most_common(1)
    return count / len(rows) if cells > 1 else 0.0


def _spaced(head: Sequence[str], sign: str) -> bool:
    first = head[0] if head else ""
    return sign in first and first.count(sign) == first.count(f"{sign} ")


def _quoted(head: Sequence[str], whole: bool, sign: str, quoting: str) -> bool:
    """In tables with tabs a " is mostly a character like any other (GLUE and its kin). It is none where the header
    stands in quotes, or where the lines are, to the letter, what a writer of csv makes of their cells (pandas)."""
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
        if whole or "unexpected end" not in str(error):  # a cell may go on behind the last line that was looked at
            return False
    written = StringIO()
    csv.writer(written, delimiter=sign, lineterminator="\n").writerows(rows)
    text = written.getvalue()
    return '"' in text and "".join(f"{line}\n" for line in head).startswith(text)
