"""Clocks that jump by hours or years while a run goes on, and files that come from another time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

from fault_injection.events import stopped_before
from fault_injection.fault import Fault, goes_on
from fault_injection.workshop import Workshop

YEAR = 365 * 86400.0
CLOCKS = {"time": ("time", "time_ns"), "monotonic": ("monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")}
JUMPS = {"years forward": ("time", 10 * YEAR), "years back": ("time", -10 * YEAR),
         "a day asleep": ("monotonic", 86400.0), "a day back": ("monotonic", -86400.0)}  # fmt: skip
"""A clock and how many seconds it jumps."""
READINGS = (1, 5, 20, 60, 200)
"""The reading at which it jumps."""


def clock_jumps(workshop: Workshop, cell: str) -> Iterator[Fault]:
    """The clock of the day set to another year; the one that counts, which ought not to jump, by a day."""
    for jump in JUMPS:
        for reading in READINGS:
            yield Fault("clocks that jump", f"clock/{cell}/{jump}/{reading}", partial(_jump, cell, jump, reading))
    for years in (-10, 10):
        yield Fault("files of another time", f"clock/{cell}/files/{years}", partial(_other_time, cell, years))


def _jump(cell: str, jump: str, reading: int, workshop: Workshop) -> list[str]:
    clock, seconds = JUMPS[jump]
    place = workshop.place(f"{cell}-clock")

    def before() -> None:
        readings = count(1)
        for name in CLOCKS[clock]:
            amount = int(seconds * 1e9) if name.endswith("_ns") else seconds
            setattr(time, name, _jumping(vars(time)[name], amount, readings, reading))

    return goes_on(workshop, cell, place, workshop.run(cell, place, before=before), {0})


def _jumping(clock: Callable[[], float], amount: float, readings: Iterator[int], reading: int) -> Callable[[], float]:
    return lambda: clock() + (amount if next(readings) >= reading else 0)


def _other_time(cell: str, years: int, workshop: Workshop) -> list[str]:
    """A run that is stopped before its export, whose files and cache are then as old as can be, or not made yet."""
    place = workshop.place(f"{cell}-times")
    first = workshop.run(cell, place, stopped_before("export"))
    moment = time.time() + years * YEAR
    for folder in (place.folder, place.cache):
        for path in folder.rglob("*"):
            os.utime(path, (moment, moment))
    return goes_on(workshop, cell, place, first)
