"""Lines that come in with their places, for messages: those of files, or of standard input."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from lmctl.data.reading import aligned_lines
from lmctl.inference.lines import files_once, incoming, is_standard_input

EXAMPLE = "file=..., or lines on standard input"


class Placed(NamedTuple):
    """A line and where it stands."""

    where: str
    """`file:line`, or `standard input:line`."""
    text: str


def placed(file: str | None, what: str = "text", example: str = EXAMPLE) -> Iterator[Placed]:
    """The lines of the file or files that `file` names, else of standard input; errors as `lines.incoming`."""
    if file is None or is_standard_input(file):
        return _numbered("standard input", incoming(None, what, example))
    return chain.from_iterable([_numbered(str(path), aligned_lines(path)) for path in files_once(file)])


def first_that_says(stream: Iterator[Placed]) -> tuple[Placed | None, Iterator[Placed]]:
    """The first line that is not blank (None: there is none), and all lines, it and those before it included."""
    begun: list[Placed] = []
    for line in stream:
        begun.append(line)
        if line.text.strip():
            return line, chain(begun, stream)
    return None, iter(begun)


def _numbered(name: str, found: Iterator[str]) -> Iterator[Placed]:
    return (Placed(f"{name}:{number}", line) for number, line in enumerate(found, start=1))
