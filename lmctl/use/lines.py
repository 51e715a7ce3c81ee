"""Lines that come in: one given, those of a file, or standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from lmctl.core.errors import ConfigError
from lmctl.data.reading import lines, text_files


def lines_of(file: str) -> Iterator[str]:
    """The lines of a text file, plain or compressed; DataError if it cannot be read."""
    for path in text_files(file):
        yield from lines(path)


def incoming(file: str | None, what: str, example: str) -> Iterator[str]:
    """The lines of `file` (plain or compressed), else of standard input; ConfigError if that is a terminal, where
    nobody knows that text is expected."""
    if file is not None:
        return lines_of(file)
    if sys.stdin.isatty():
        raise ConfigError(f"no {what} given", example)
    return (line.removesuffix("\n").removesuffix("\r") for line in sys.stdin)
