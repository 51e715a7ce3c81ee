"""What a person sees of a run: a live line on a terminal, plain lines elsewhere. Only the first process speaks."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

PLAIN_SECONDS = 10.0
"""Without a terminal, at most one progress line in this many seconds."""
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
        """One line, as it is (foreign text may look like markup)."""
        self.console.print(text, markup=False)

    def start(self) -> None:
        """Begin to show progress."""
        if self.console.is_terminal and not self.console.quiet:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(bar_width=20), console=self.console, transient=True
            )
            self._bar.start()
            self._task = self._bar.add_task("starting", total=1.0)

    def step(self, line: dict[str, Any], progress: float) -> None:
        """Show a line of the record; `progress` (0 to 1) is the share of the budget that is spent."""
        text = describe(line, progress)
        if self._bar is not None:
            self._bar.update(self._task, description=text, completed=progress)
        elif line["split"] == "valid" or time.monotonic() - self._spoke >= PLAIN_SECONDS:
            self._spoke = time.monotonic()
            self.say(text)
        if self._bar is not None and line["split"] == "valid":
            self.say(text)

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
    left = line["seconds"] * (1 - progress) / progress if progress else 0.0
    extra = f"  skipped {line['skipped_steps']}" if line["skipped_steps"] else ""
    return (
        f"{head}  lr {line['lr']:.2e}  {line['tokens_per_s']:,.0f} tokens/s  "
        f"{line['peak_memory_bytes'] / 2**20:,.0f} MiB  {duration(left)} left{extra}"
    )


def duration(seconds: float) -> str:
    """Seconds as a person says them: 4m05s, 2h10m."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"


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
