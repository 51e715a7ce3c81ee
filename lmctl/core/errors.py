"""The exceptions a user can cause, and the exit codes they end in.

Each message is one or two plain lines: what is wrong, where, and what to do. Jobs raise; only the command
line turns an exception into an exit code (a `sys.exit` inside a job would take a whole sweep down with it).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `lmctl`; public, other programs rely on them."""

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
    """An error with a message for the person at the keyboard. `hint` is the remedy, on a line of its own."""

    code = Exit.FAILED

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(LmctlError):
    """A wrong key, value or combination; known before any work starts."""

    code = Exit.USAGE


class ConfigErrors(ConfigError):
    """Several mistakes, told together: a line for each, and its remedy."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        *others, last = errors
        told = [f"{error}\n  {error.hint}" if error.hint else str(error) for error in others]
        super().__init__("\nerror: ".join([*told, str(last)]), last.hint)
        self.errors = tuple(errors)


def together(errors: Iterable[ConfigError]) -> ConfigError | None:
    """All of them as one error, or the only one, or None; what several say in the same words is said once."""
    different = list({str(error): error for error in reversed(list(errors))}.values())[::-1]
    return ConfigErrors(different) if len(different) > 1 else next(iter(different), None)


class DataError(LmctlError):
    """Text or rows that cannot be used; the message names the file and the place in it."""

    code = Exit.DATA


class Diverged(LmctlError):
    """The loss or the gradients stopped being finite; the weights were not touched by that step."""

    code = Exit.DIVERGED


class OutOfMemory(LmctlError):
    """The device has no room for the batch."""

    code = Exit.OUT_OF_MEMORY


class DiskError(LmctlError):
    """A file could not be written; whatever was saved before is intact."""

    code = Exit.DISK


class Stopped(LmctlError):
    """A signal asked the run to stop and everything is saved: the same command with `resume=auto` goes on."""

    code = Exit.STOPPED
