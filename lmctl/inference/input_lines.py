"""Reading lines of files or of standard input, with their positions for messages."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple, cast

from lmctl.core.errors import ConfigError
from lmctl.data.file_status import is_pipe
from lmctl.data.reading import aligned_lines, aligned_lines_of, text_files

STANDARD_INPUT = "-"
"""File name that stands for standard input."""


def is_standard_input(file: str | None) -> bool:
    return file is None or file == STANDARD_INPUT


def comes_once(file: str | None) -> bool:
    """Whether `file` can be read only once: standard input and pipes."""
    return file is None or file == STANDARD_INPUT or is_pipe(Path(file).expanduser())


def lines_of(file: str) -> Iterator[str]:
    """The lines of a text file, plain or compressed; DataError if it cannot be read.

    Only `\\n` and `\\r\\n` end a line, so that output line i belongs to input line i.
    """
    for path in files_once(file):
        yield from aligned_lines(path)


def count_lines(file: str | None) -> int:
    """Number of lines of a file that can be read twice; 0 for others."""
    return 0 if file is None or comes_once(file) else sum(1 for _ in lines_of(file))


def files_once(file: str) -> list[Path]:
    """The files at path `file`, to be read once: it may be a pipe, as in `file=<(zcat lines.gz)`."""
    place = Path(file).expanduser()
    return [place] if is_pipe(place) else text_files(file)


def incoming(file: str | None, what: str, example: str) -> Iterator[str]:
    """The lines of `file`, else of standard input, plain or compressed; ConfigError if there is no input, or if
    standard input is a terminal, where the user may not know that text is expected."""
    if file is not None and not is_standard_input(file):
        return lines_of(file)
    stream = sys.stdin
    if stream is None or stream.closed:
        raise ConfigError(f"no {what} given: standard input is closed", example)
    if stream.isatty():
        raise ConfigError(f"no {what} given", example)
    if isinstance(stream, io.TextIOWrapper):
        return aligned_lines_of(cast(io.BufferedReader, stream.buffer), "standard input")
    # Text set by a program that calls lmctl from Python.
    return aligned_lines_of(io.BytesIO(stream.read().encode(errors="surrogatepass")), "standard input")


EXAMPLE = "file=..., or lines on standard input"


class Placed(NamedTuple):
    """A line and its position."""

    where: str
    """`file:line`, or `standard input:line`."""
    text: str


def placed(file: str | None, what: str = "text", example: str = EXAMPLE) -> Iterator[Placed]:
    """The lines of the file or files at `file`, else of standard input; errors as in `incoming`."""
    if file is None or is_standard_input(file):
        return _numbered("standard input", incoming(None, what, example))
    return chain.from_iterable([_numbered(str(path), aligned_lines(path)) for path in files_once(file)])


def first_not_blank(stream: Iterator[Placed]) -> tuple[Placed | None, Iterator[Placed]]:
    """The first line that is not blank (None if all are), and an iterator over all lines, including it."""
    begun: list[Placed] = []
    for line in stream:
        begun.append(line)
        if line.text.strip():
            return line, chain(begun, stream)
    return None, iter(begun)


def _numbered(name: str, found: Iterator[str]) -> Iterator[Placed]:
    return (Placed(f"{name}:{number}", line) for number, line in enumerate(found, start=1))
