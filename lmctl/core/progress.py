"""Progress reporting: the working code counts, the display reads.

There is one current stage per process. File readers count bytes (`advance`), whether a display is on or not. The
watchdog looks at `beats` only.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")


@dataclass
class Stage:
    """A stage of the work, with its progress."""

    what: str
    total: int = 0
    """Total in `unit`; 0 if not known."""
    unit: str = "bytes"
    done: int = 0
    items: int = 0
    noun: str = "documents"
    """What `items` counts."""
    known: bool = False
    """Whether `total` was known from the beginning, so that `expect` adds nothing."""
    began: float = field(default_factory=time.monotonic)

    def reach(self, done: int) -> None:
        """Say that so much is done in all."""
        beat()
        self.done = done

    def __str__(self) -> str:
        seconds = time.monotonic() - self.began
        parts = []
        if self.total:
            done = min(self.done, self.total)
            parts.append(f"{done / self.total:.0%} of {_amount(self.total, self.unit)}")
        elif self.done:
            parts.append(_amount(self.done, self.unit))
        if self.items:
            parts.append(f"{self.items:,} {self.noun}")
        if self.total and self.total > self.done > 0 and seconds > 1:
            parts.append(f"{duration(seconds * (self.total - self.done) / self.done)} left")
        else:
            parts.append(duration(seconds))
        return f"{self.what}: {', '.join(parts)}"


_now: Stage | None = None


@contextmanager
def stage(what: str, total: int = 0, unit: str = "bytes", noun: str = "documents") -> Iterator[Stage]:
    """Context manager: make this the current stage; afterwards the enclosing one is current again."""
    global _now
    before, _now = _now, Stage(what, total, unit, noun=noun, known=total > 0)
    try:
        yield _now
    finally:
        _now = before


_beats = 0


def beat() -> None:
    """Say that the work goes on: a step, a batch, a block of a file is done."""
    global _beats
    _beats += 1


def beats() -> int:
    """Number of calls of `beat` in this process."""
    return _beats


def now() -> Stage | None:
    """The current stage."""
    return _now


def advance(amount: int, unit: str = "bytes") -> None:
    """Add to the progress of the current stage, if it counts in `unit`."""
    beat()
    if _now is not None and _now.unit == unit:
        _now.done += amount


def expect(amount: int, unit: str = "bytes") -> None:
    """Add to the total of the current stage, if it counts in `unit` and was not told its total."""
    if _now is not None and _now.unit == unit and not _now.known:
        _now.total += amount


def counted(items: Iterable[Item]) -> Iterator[Item]:
    """Iterate over items and count them in the current stage."""
    for item in items:
        if _now is not None:
            _now.items += 1
        yield item


def _amount(amount: int, unit: str) -> str:
    if unit != "bytes":
        return f"{amount:,} {unit}"
    for size, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if amount >= size:
            return f"{amount / size:.1f} {name}"
    return f"{amount} bytes"


def duration(seconds: float) -> str:
    """Seconds as readable text: 4m05s, 2h10m."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"
