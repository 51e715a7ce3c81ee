"""Signal handling: a stop signal ends a command at once, except where state must be saved first (training).

Inside `saving` a signal only sets a flag: the run finishes its step, saves, and exits with code 75. Elsewhere it
raises. The handlers are installed before torch is imported: of the signals sent at random moments to a young process, a
third arrive during that import, and Python's default would end the process without a message.
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
    """Raised by a signal where nothing has to be saved."""

    def __init__(self, words: str, name: str) -> None:
        """`words` is the message, `name` the signal's name."""
        super().__init__(words)
        self.name = name


def install(words: str = "interrupted; nothing had to be saved") -> None:
    """Install handlers for the stop signals; they raise Interrupted(`words`) outside `saving`. Does nothing outside the
    main thread, where Python does not allow it."""
    global _requested, _parent, _saves, _ignores, _words, _interrupted
    if threading.current_thread() is not threading.main_thread():
        return
    _requested, _parent, _saves, _ignores = None, os.getppid(), 0, False
    _words, _interrupted = words, False
    for number in SIGNALS:
        signal.signal(number, _handle)


@contextmanager
def saving() -> Iterator[None]:
    """Context manager for work that must be saved before exit: the first signal is recorded (see `requested`), the
    second ends the process at once without saving."""
    global _saves, _words
    _saves, _words = _saves + 1, "interrupted"
    try:
        yield
    finally:
        _saves -= 1


def _handle(number: int, frame: FrameType | None) -> None:
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
    """Ignore stop signals from now on: everything is saved, and a launcher's clean-up must not change the exit code."""
    global _ignores
    _ignores = True


def interrupted() -> bool:
    """Whether a signal interrupted the command: it is then the cause of the exit, whichever exception a library
    raised."""
    return _interrupted


def requested() -> str | None:
    """Why the run should stop (the signal's name, or the launcher's death), or None."""
    if _requested is not None:
        return _requested.name
    if _parent is not None and "LMCTL_LAUNCHED" in os.environ and os.getppid() != _parent:
        return "the launcher's death"
    return None


def in_thread(work: Callable[[], Result]) -> Result:
    """Run `work` in a daemon thread and return its result: Python cannot handle a signal while native code runs for
    minutes in the main thread. On a signal the thread is abandoned; it ends with the process."""
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
        atexit.register(_exit_now, thread)
        raise
    for error in errors:
        raise error
    return results[0]


def _exit_now(thread: threading.Thread) -> None:
    """End the process without joining a running thread: native code may crash during the interpreter's shutdown."""
    if thread.is_alive():
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(Exit.INTERRUPTED)
