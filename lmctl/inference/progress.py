"""Progress of an evaluation, and of texts that are labelled, scored or continued, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

from rich.progress import Progress, SpinnerColumn, TextColumn

from lmctl.core import progress
from lmctl.core.progress import duration
from lmctl.train.display import PLAIN_SECONDS, Display

T = TypeVar("T")


@contextmanager
def inputs_done(display: Display, what: str, total: int, unit: str, to_file: bool = False) -> Iterator[None]:
    """Context that shows how many of `total` inputs are done and how long the rest takes, where results go `to_file` or
    into a pipe: on a terminal they are progress enough. `total` 0: not known, as of standard input."""
    seen = total == 0 or (sys.stdout.isatty() and not to_file)
    with progress.stage(what, total, unit), nullcontext() if seen else display.watching(live=to_file):
        yield


class Watch:
    """The progress display of one evaluation: a live line on a terminal, occasional plain lines elsewhere."""

    def __init__(self, display: Display, what: str) -> None:
        self.display, self.what = display, what
        self.read = self.batches = 0
        self.begun = self.spoke = time.monotonic()
        self._live: Progress | None = None
        self._line: Any = None

    @contextmanager
    def over(self, model: Any) -> Iterator[Watch]:
        """Context manager: count forward passes of `model`, a torch module, and display them."""
        console = self.display.console
        hook = model.register_forward_hook(lambda *_: self._count(batches=1))
        if console.is_terminal and not console.quiet:
            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
            self._live = Progress(*columns, console=console, transient=True)
            self._live.start()
            self._line = self._live.add_task(self.describe(), total=None)
        try:
            with progress.stage(self.what, unit="rows"):
                yield self
        finally:
            hook.remove()
            if self._live is not None:
                self._live.stop()
                self._live = None

    def rows(self, stream: Iterator[T]) -> Iterator[T]:
        """Pass rows on and count them."""
        for row in stream:
            self._count(rows=1)
            yield row

    def describe(self) -> str:
        """The current stage, with the time left, if its total is known; otherwise what was counted."""
        if (stage := progress.now()) is not None and stage.total:
            return str(stage) if stage.what == self.what else f"{self.what}: {stage}"
        taken = duration(time.monotonic() - self.begun)
        return f"{self.what}: {self.read:,} rows read, {self.batches:,} batches through the model, {taken}"

    def _count(self, rows: int = 0, batches: int = 0) -> None:
        self.read, self.batches = self.read + rows, self.batches + batches
        if self._live is not None:
            self._live.update(self._line, description=self.describe())
        elif time.monotonic() - self.spoke >= PLAIN_SECONDS:
            self.spoke = time.monotonic()
            self.display.say(self.describe())
