"""Signal handling: a stop signal ends a command at once, except where state must be saved first (training).

Inside `saving` a signal only sets a flag: the run finishes its step, saves, and exits with code 75. Elsewhere it
raises. The handlers are installed before anything large is imported: of the signals sent at random moments to a young
process, a third arrive during the import of torch, and Python's default would end the process without a message.

A command that lmctl started (a job of a sweep, a stage, a worker) ends with its parent, as if the terminal had hung up.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TypeAlias, TypeVar

from lmctl.core.child_process import PARENT
from lmctl.core.errors import Exit
from lmctl.core.terminal import tell_in_handler

Result = TypeVar("Result")
Handler: TypeAlias = Callable[[int, FrameType | None], Any]

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
ECHO_SECONDS = 0.5
"""A scheduler may signal every process of a job, of which a launcher signals its workers once more: the same signal
again within this time is the same wish."""
AGAIN_SECONDS = 0.05
"""After this time a signal is sent again that was lost while an object was destroyed."""
WORDS = "interrupted; nothing had to be saved"

_requested: signal.Signals | None = None
_moment = 0.0
_parent: int | None = None
_saves = 0
_ignores = False
_words = WORDS
_interrupted_by: str | None = None


class Interrupted(KeyboardInterrupt):
    """Raised by a signal where nothing has to be saved."""

    def __init__(self, name: str, words: str = WORDS) -> None:
        """`name` is the signal's name, `words` the message."""
        super().__init__(words)
        self.name = name


def install() -> None:
    """Install handlers for the stop signals; they raise Interrupted outside `saving`. Does nothing outside the main
    thread, where Python does not allow it."""
    global _requested, _parent, _saves, _ignores, _words, _interrupted_by
    if threading.current_thread() is not threading.main_thread():
        return
    _requested, _saves, _ignores, _words, _interrupted_by = None, 0, False, WORDS, None
    _parent = int(os.environ[PARENT]) if PARENT in os.environ else None
    _set(_handle)
    sys.unraisablehook = _deliver_again
    if _parent is not None:
        _end_with_parent()


def _deliver_again(lost: sys.UnraisableHookArgs) -> None:
    """`sys.unraisablehook`: a signal that arrives while an object is destroyed raises where Python lets nothing through
    but a printed traceback. Send it once more, a little later."""
    if not isinstance(lost.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    name = lost.exc_value.name if isinstance(lost.exc_value, Interrupted) else signal.SIGINT.name
    later = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), signal.Signals[name]))
    later.daemon = True
    with suppress(RuntimeError):  # no thread starts any more: the process is ending anyway
        later.start()


@contextmanager
def handled_by(handler: Handler) -> Iterator[None]:
    """Context manager: `handler` gets the stop signals."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _set(handler)
    try:
        yield
    finally:
        for number, one in before.items():
            signal.signal(number, one)


def _set(handler: Handler) -> None:
    """Make `handler` the handler of the stop signals. `nohup` is respected: a hang-up that is ignored stays so, except
    in a child of lmctl, which no terminal reaches."""
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN or is_child():
            signal.signal(number, handler)


def is_child() -> bool:
    """Whether another lmctl process started this one."""
    return _parent is not None


def _end_with_parent() -> None:
    """Have the system send SIGHUP when the parent process ends, also by SIGKILL (prctl(2), on Linux). Elsewhere only
    `requested` notices."""
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGHUP)
    if _parent_has_ended():  # before that
        signal.raise_signal(signal.SIGHUP)


def _parent_has_ended() -> bool:
    return _parent is not None and os.getppid() != _parent


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
    global _requested, _moment, _interrupted_by
    if _ignores:
        return
    if not _saves:
        _interrupted_by = signal.Signals(number).name
        raise Interrupted(_interrupted_by, _words)
    if _requested is None:
        _requested, _moment = signal.Signals(number), time.monotonic()
        if int(os.environ.get("RANK", "0")) == 0:
            tell_in_handler("stopping as soon as everything is saved; a second signal ends it at once, saving nothing")
    elif number != signal.SIGHUP and not (number == _requested and time.monotonic() - _moment < ECHO_SECONDS):
        raise KeyboardInterrupt  # nobody is in a hurry who hangs up


def ignore() -> None:
    """Ignore stop signals from now on: everything is saved, and a launcher's clean-up must not change the exit code."""
    global _ignores
    _ignores = True


def exit_at_once(code: int) -> None:
    """From now on a stop signal ends the process with `code`: all is done but the interpreter's own end, which takes a
    second with torch, and joins threads that may be blocked."""

    def leave(number: int, frame: FrameType | None) -> None:
        os._exit(code)

    _set(leave)


def interrupted() -> Interrupted | None:
    """The interruption by a signal, if there was one: it is then the cause of the exit, whichever exception a library
    raised."""
    return None if _interrupted_by is None else Interrupted(_interrupted_by, _words)


def requested() -> str | None:
    """Why the run should stop (the signal's name, or the parent's end), or None."""
    if _parent_has_ended():
        return "the end of the command that started it"
    return None if _requested is None else _requested.name


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
