"""Stopping on request: a signal sets a flag, the run finishes its step, saves, and ends with exit code 75.

The handlers are installed before torch is imported: of the signals sent at random moments to a young process, a
third arrive during that import, and Python's default would end the process with nothing saved.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

_requested: signal.Signals | None = None
_parent: int | None = None


def install() -> None:
    """Catch the stop signals from now on; the second one ends the process at once, saving nothing."""
    global _requested, _parent
    _requested, _parent = None, os.getppid()
    for number in SIGNALS:
        signal.signal(number, _note)


def _note(number: int, frame: FrameType | None) -> None:
    global _requested
    if _requested is not None:
        raise KeyboardInterrupt
    _requested = signal.Signals(number)
    if int(os.environ.get("RANK", "0")) == 0:
        os.write(2, b"\nstopping as soon as everything is saved; a second signal ends it at once, saving nothing\n")


def ignore() -> None:
    """Everything is saved: a launcher that now tidies up must not turn a good end into a bad one."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def requested() -> str | None:
    """Why the run should stop, or None. A worker whose launcher died is asked to stop, too."""
    if _requested is not None:
        return _requested.name
    if _parent is not None and "LMCTL_LAUNCHED" in os.environ and os.getppid() != _parent:
        return "the launcher's death"
    return None
