"""Watchdog: a process that makes no progress for too long is ended, with the stacks of all its threads.

A hang (a collective that a dead worker never joins, a read from a file system that no longer answers) costs days if
nobody looks. What counts as progress is said by `lmctl.core.progress.beat`.
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from lmctl.core import progress
from lmctl.core.errors import Exit

BUSY = 0.05
"""Share of a core above which a process that reads or computes is not taken for hung."""
OTHERS_SECONDS = 3.0
"""Time left to the other workers, which hang at the same moment, before the first one's end makes a launcher end
them."""

_ending = threading.Lock()
"""Held by the watchdog that ends the process: of two, one inside the other, one speaks."""


class Watchdog:
    """Context manager that ends the process after `seconds` without progress; null: never.

    Time in which the process itself does not run (SIGSTOP, a suspended machine) does not count.
    """

    def __init__(self, seconds: float | None, stacks: Path, computing: bool = False, key: str = "watchdog_s") -> None:
        """`stacks`: the file for the stacks, besides standard error. `computing`: using the CPU is progress, too, which
        it is not where a hung worker waits in a busy loop. `key`: the setting that `seconds` are of."""
        self.seconds, self.stacks, self.computing, self.key = seconds, stacks, computing, key
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watchdog:
        if self.seconds is not None:
            self._thread = threading.Thread(target=self._watch, args=(self.seconds,), daemon=True, name="watchdog")
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, seconds: float) -> None:
        tick, quiet = min(1.0, seconds / 4), 0.0
        beats, clock, cpu = progress.beats(), time.monotonic(), time.process_time()
        while not self._over.wait(tick):
            before, beats = beats, progress.beats()
            passed, clock = time.monotonic() - clock, time.monotonic()
            used, cpu = time.process_time() - cpu, time.process_time()
            if beats != before or (self.computing and used > BUSY * tick):
                quiet = 0.0
            else:
                quiet += min(passed, 2 * tick)  # after SIGCONT, hours may have passed
            if quiet >= seconds:
                self._end(seconds)

    def _end(self, seconds: float) -> None:
        _ending.acquire()
        words = (
            f"error: no progress for {progress.duration(seconds)} ({self.key}={seconds:g}): hung, and ended here; "
            f"the stacks of all threads follow\n  also in {self.stacks}; resume=auto goes on from the last checkpoint\n"
        )
        places = [2]
        with suppress(OSError):
            places.append(os.open(self.stacks, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666))
        for place in places:
            with suppress(OSError):
                os.write(place, words.encode())
                faulthandler.dump_traceback(place, all_threads=True)
        time.sleep(OTHERS_SECONDS)
        os._exit(Exit.FAILED)
