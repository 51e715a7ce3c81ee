"""What a person sees of a run: a live line on a terminal, plain lines elsewhere. Only the first process speaks."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from lmctl.core import progress
from lmctl.core.progress import duration

PLAIN_SECONDS = 10.0
"""Without a terminal, at most one progress line in this many seconds."""
PATIENCE_SECONDS, LIVE_SECONDS = 1.5, 0.25
"""How long work may last before anything is shown of it; between two looks at it on a terminal."""
WIDEST = 100_000
"""Columns that no table reaches."""


class Display:
    """Progress on standard error, so that standard output stays free for results."""

    def __init__(self, silent: bool = False) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=silent)
        self._bar: Progress | None = None
        self._task: Any = None
        self._spoke = 0.0

    def say(self, text: str) -> None:
        """One line, as it is (foreign text may look like markup); a terminal that is too narrow gets it in parts."""
        if self.console.is_terminal:
            text = folded(text, self.console.width)
        self.console.print(text, markup=False)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Show how far long work is (see `lmctl.core.progress`) while it lasts; of short work nothing is shown."""
        if self.console.quiet:
            yield
            return
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(over,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _watch(self, over: threading.Event) -> None:
        if over.wait(PATIENCE_SECONDS):
            return
        if not self.console.is_terminal:
            self._tell()
            while not over.wait(PLAIN_SECONDS):
                self._tell()
            return
        with self.console.status("", spinner="line") as line:
            while not over.wait(LIVE_SECONDS):
                line.update(escape(str(progress.now() or "")))

    def _tell(self) -> None:
        if (stage := progress.now()) is not None:
            self.say(str(stage))

    def start(self) -> None:
        """Begin to show progress."""
        if self.console.is_terminal and not self.console.quiet:
            self._bar = Progress(
                BarColumn(bar_width=16),
                TextColumn("{task.description}", markup=False),
                console=self.console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("starting", total=1.0)

    def step(self, line: dict[str, Any], progress: float) -> None:
        """Show a line of the record; `progress` (0 to 1) is the share of the budget that is spent."""
        valid = line["split"] == "valid"
        if self._bar is not None and not valid:
            self._bar.update(self._task, description=live(line, progress), completed=progress)
        elif self._bar is not None or valid or time.monotonic() - self._spoke >= PLAIN_SECONDS:
            self._spoke = time.monotonic()
            self.say(describe(line, progress))

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


QUIET = ("tokens/", "share/", "adversarial/")
"""What is recorded of every task but would make the line too long."""


def describe(line: dict[str, Any], progress: float) -> str:
    """One line of the record in words."""
    losses = "  ".join(
        f"{key.rsplit('/', 1)[-1]} {value:.3f}"
        for key, value in line.items()
        if "/" in key and not key.startswith(QUIET)
    )
    head = f"step {line['step']:>6,}  {line['split']}  loss {line['loss']:.3f}  ({losses})"
    if line["split"] == "valid":
        return head
    extra = f"  skipped {line['skipped_steps']}" if line["skipped_steps"] else ""
    return (
        f"{head}  lr {line['lr']:.2e}  {line['tokens_per_s']:,.0f} tokens/s  "
        f"{line['peak_memory_bytes'] / 2**20:,.0f} MiB  {left(line, progress)}{extra}"
    )


def live(line: dict[str, Any], progress: float) -> str:
    """A training line for the one line that changes: what one looks for comes first, what is cut off last."""
    skipped = f"skipped {line['skipped_steps']}  " if line["skipped_steps"] else ""
    return (
        f"{left(line, progress)}  step {line['step']:,}  loss {line['loss']:.3f}  "
        f"{line['tokens_per_s']:,.0f} tokens/s  {skipped}lr {line['lr']:.2e}  "
        f"{line['peak_memory_bytes'] / 2**20:,.0f} MiB"
    )


def left(line: dict[str, Any], progress: float) -> str:
    """The time that the rest of the budget will take at the speed so far."""
    return f"{duration(line['seconds'] * (1 - progress) / progress if progress else 0.0)} left"


def folded(text: str, width: int) -> str:
    """Lines of at most `width` columns, broken only where two spaces or more set parts apart: commands stay whole, so
    that they can be copied. What goes on is indented."""
    lines: list[str] = []
    for whole in text.splitlines():
        lines.append("")
        for gap, part in re.findall(r"( {2,}|^)(.+?)(?= {2,}|$)", whole):
            if lines[-1].strip() and cell_len(lines[-1] + gap + part) > width:
                lines.append("    " + part)
            else:
                lines[-1] += gap + part
    return "\n".join(lines)


def quiet_libraries() -> None:
    """Keep notes that no user can act on away from the terminal."""
    import logging
    import os
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module="torch|transformers|accelerate")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it recommends kernels from a hub
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def print_whole(whole: Table, short: Table) -> None:
    """Print a table without breaking its lines: a file or pipe gets lines of any length, a terminal that is too narrow
    for `whole` gets `short`."""
    console = Console(highlight=False)
    natural = console.measure(whole, options=console.options.update(max_width=WIDEST)).maximum
    if natural > console.width and not console.is_terminal:
        console.width = natural
    console.print(whole if natural <= console.width else short)
