"""Stopping on request: a signal ends a command at once, unless there is something to save first.

Where training goes on (`saving`) a signal sets a flag: the run finishes its step, saves, and ends with exit code 75.
Everywhere else nothing has to be saved, and it interrupts. The handlers are installed before torch is imported: of the
signals sent at random moments to a young process, a third arrive during that import, and Python's default would end
the process without a word.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

from lmctl.core.errors import Exit

Result = TypeVar("Result")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

_requested: signal.Signals | None = None
_parent: int | None = None
_saves = 0
_ignores = False
_words = ""
_interrupted = False


class Interrupted(KeyboardInterrupt):
    """A signal that came where nothing has to be saved."""

    def __init__(self, words: str, name: str) -> None:
        """`words` say so, `name` is the signal's."""
        super().__init__(words)
        self.name = name


def install(words: str = "interrupted; nothing had to be saved") -> None:
    """Catch the stop signals from now on; they raise Interrupted(`words`), but within `saving`. Only the main thread
    can do that; elsewhere nothing happens."""
    global _requested, _parent, _saves, _ignores, _words, _interrupted
    if threading.current_thread() is not threading.main_thread():
        return
    _requested, _parent, _saves, _ignores = None, os.getppid(), 0, False
    _words, _interrupted = words, False
    for number in SIGNALS:
        signal.signal(number, _note)


@contextmanager
def saving() -> Iterator[None]:
    """While something must be saved before the end: the first signal is only noted (see `requested`), the second ends
    the process at once, saving nothing."""
    global _saves, _words
    _saves, _words = _saves + 1, "interrupted"
    try:
        yield
    finally:
        _saves -= 1


def _note(number: int, frame: FrameType | None) -> None:
    global _requested, _interrupted
    if _ignores:
        return
    if not _saves:
        _interrupted = True
        raise Interrupted(_words, signal.Signals(number).name)
    if _requested is not None:
        raise KeyboardInterrupt
    _requested = signal.Signals(number)
    if int(os.environ.get("RANK", "0")) == 0:
        os.write(2, b"\nstopping as soon as everything is saved; a second signal ends it at once, saving nothing\n")


def ignore() -> None:
    """Everything is saved: a launcher that now tidies up must not turn a good end into a bad one."""
    global _ignores
    _ignores = True


def interrupted() -> bool:
    """Whether a signal has interrupted: what ends the command now is its doing, whatever a library made of it."""
    return _interrupted


def requested() -> str | None:
    """Why the run should stop, or None. A worker whose launcher died is asked to stop, too."""
    if _requested is not None:
        return _requested.name
    if _parent is not None and "LMCTL_LAUNCHED" in os.environ and os.getppid() != _parent:
        return "the launcher's death"
    return None


def apart(work: Callable[[], Result]) -> Result:
    """What `work` returns, which a thread of its own computes: native code that runs for minutes lets Python hear of a
    signal only if it does not run in the main thread. When a signal interrupts, the thread is left to itself, and ends
    with the process."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        thread.join()
    except BaseException:
        atexit.register(_leave, thread)
        raise
    for error in errors:
        raise error
    return results[0]


def _leave(thread: threading.Thread) -> None:
    """End the process without waiting for a thread that is still at work: native code does not survive the
    interpreter's own tidying up."""
    if thread.is_alive():
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(Exit.INTERRUPTED)
