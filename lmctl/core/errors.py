"""User-facing exceptions and their exit codes.

Each message is one or two plain lines: what is wrong, where, and what to do. Jobs raise; only the command line turns an
exception into an exit code (a `sys.exit` inside a job would end a whole sweep).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `lmctl`; a public interface for scripts."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    DATA = 3
    DIVERGED = 4
    OUT_OF_MEMORY = 5
    DISK = 6
    STOPPED = 75
    INTERRUPTED = 130


class LmctlError(Exception):
    """An error whose message is shown to the user. `hint` is the remedy, on a line of its own."""

    code = Exit.FAILED
    everywhere = False
    """Whether all processes of a run raise it at the same point, so that the first one alone reports it."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(LmctlError):
    """A wrong key, value or combination; raised before any work starts."""

    code = Exit.USAGE


class ConfigErrors(ConfigError):
    """Several config errors reported at once, each with its remedy."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        *others, last = errors
        rendered = [f"{error}\n  {error.hint}" if error.hint else str(error) for error in others]
        super().__init__("\nerror: ".join([*rendered, str(last)]), last.hint)
        self.errors = tuple(errors)


def together(errors: Iterable[ConfigError]) -> ConfigError | None:
    """Merge errors into one (None if there are none); identical messages are reported once."""
    different = list({str(error): error for error in reversed(list(errors))}.values())[::-1]
    return ConfigErrors(different) if len(different) > 1 else next(iter(different), None)


class DataError(LmctlError):
    """Text or rows that cannot be used; the message names the file and the line."""

    code = Exit.DATA


class Diverged(LmctlError):
    """Loss or gradients are no longer finite; the weights were not changed by that step."""

    code = Exit.DIVERGED


class OutOfMemory(LmctlError):
    """The device has no memory for the batch."""

    code = Exit.OUT_OF_MEMORY


class DiskError(LmctlError):
    """A file could not be written; files saved before are intact."""

    code = Exit.DISK


class Stopped(LmctlError):
    """A signal stopped the run after everything was saved; the same command with `resume=auto` continues it."""

    code = Exit.STOPPED


def is_panic(error: BaseException) -> bool:
    """Whether `error` is a panic of a library written in Rust (tokenizers, safetensors), which is no `Exception`."""
    return type(error).__name__ == "PanicException"
