"""Standard output and standard error of a command, where writing may fail at any time.

A reader that left (`2>&1 | tee log`, and Ctrl-C reaches tee as well), a full disk under a redirected log, a terminal
that hung up: a message that cannot be written is lost, and the work goes on. A result that cannot be written ends the
command.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, cast

from lmctl.core.errors import DiskError, LmctlError
from lmctl.core.secrets import masked

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal obeys instead of showing it: C0 controls except tab and line feed, DEL, C1 controls, bidirectional
embeddings, overrides and isolates. And unpaired surrogates, which cannot be encoded."""


def printable(text: str) -> str:
    r"""`text` with control characters and bidirectional overrides as escapes (`\x1b`, `\u202e`): names and messages of
    strangers must not move the cursor, change the title or turn a line around."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}" if found[0] < " " else f"\\u{ord(found[0]):04x}", text)


def tell(*lines: str) -> None:
    """Print lines to standard error, at once, with secrets masked."""
    print(*(printable(masked(line)) for line in lines), sep="\n", file=sys.stderr, flush=True)


def tell_in_handler(line: str) -> None:
    """The same within a signal handler, which may have interrupted a write to the same stream."""
    with suppress(OSError):
        os.write(2, f"\n{line}\n".encode())


class ReaderLeft(LmctlError):
    """The reader of standard output has closed it (`lmctl list | head`): the command ends without a message."""

    def __init__(self) -> None:
        super().__init__("")


class _Output(io.TextIOBase):
    """A text stream whose failures are handled; with `escapes`, text is made printable."""

    def __init__(self, stream: TextIO, escapes: bool) -> None:
        self._stream, self._escapes = stream, escapes

    def failed(self, error: OSError | ValueError) -> None:
        """What to do about a failed write."""
        raise NotImplementedError

    @property
    def rich_proxied_file(self) -> _Output:
        """The stream that rich takes: its own control sequences must arrive (`lmctl.train.display.console` escapes)."""
        return type(self)(self._stream, escapes=False) if self._escapes else self

    def write(self, text: str) -> int:
        try:
            self._stream.write(printable(text) if self._escapes else text)
        except (OSError, ValueError) as error:
            self.failed(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self.failed(error)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding


class Messages(_Output):
    """A stream for messages: what cannot be written is lost. The next message is tried again, because a full disk may
    have room by then."""

    def failed(self, error: OSError | ValueError) -> None:
        pass


class Results(_Output):
    """A stream for results: DiskError if they cannot be written, ReaderLeft if nobody reads them."""

    def failed(self, error: OSError | ValueError) -> None:
        if isinstance(error, BrokenPipeError):
            raise ReaderLeft from None
        if not isinstance(error, OSError):
            raise error
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise DiskError(
            f"cannot write to standard output: {error.strerror or error}",
            "free some space, or write to another place" if full else "send it to a file or to another command",
        ) from None


@contextmanager
def standard_streams() -> Iterator[None]:
    """Context manager: standard error takes messages, standard output results. What could not be written is dropped at
    the end, so that the interpreter's own flush at exit neither complains nor changes the exit code."""
    _open_closed()
    before = (sys.stdout, sys.stderr)
    results = Results(sys.stdout, escapes=sys.stdout.isatty())
    sys.stdout, sys.stderr = cast(TextIO, results), cast(TextIO, Messages(sys.stderr, escapes=False))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in before:
            _flush_or_drop(stream)


@contextmanager
def only_messages() -> Iterator[None]:
    """Context manager for work whose results are in files: what it prints to standard output are messages."""
    before = sys.stdout
    beneath = before._stream if isinstance(before, _Output) else before
    sys.stdout = cast(TextIO, Messages(beneath, escapes=True))
    try:
        yield
    finally:
        sys.stdout = before


def _open_closed() -> None:
    """Open what is closed (`>&-`) on the null device, or the next file to be opened would get its number and, with it,
    what is written there by number. Writing results to it fails."""
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)  # it takes the lowest free number, which is this one
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _flush_or_drop(stream: TextIO) -> None:
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
