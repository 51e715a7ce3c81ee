"""Progress output of a run: a progress bar on a terminal, plain lines elsewhere. Only rank 0 prints."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.segment import Segment
from rich.table import Table

from lmctl.core import progress
from lmctl.core.imports import without_collector
from lmctl.core.progress import duration
from lmctl.core.secrets import masked
from lmctl.core.terminal import printable

PLAIN_SECONDS = 10.0
"""Without a terminal, the minimum interval between progress lines."""
PATIENCE_SECONDS, LIVE_SECONDS = 1.5, 0.25
"""Delay before long work shows progress, and refresh interval on a terminal."""
WIDEST = 100_000
"""Console width for tables that must not wrap."""
COMMAND = re.compile(r"\blmctl [a-z]|\bpip install\b")
"""What a line to be copied into a shell has in it."""
LABELLED = re.compile(r"( *\S+ {2,})(\S+(?: \S+)*)")
"""A word, and behind a gap a text, which is folded below itself: `note        assumed: ...`."""


class _Console(Console):
    """A console of rich on which text is `printable`, wherever it stands (rich removes only BEL of it), and the lines
    of a table end where their text ends."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        segments = (
            segment if segment.control else segment._replace(text=printable(segment.text))
            for segment in super().render(renderable, options)
        )
        return _unpadded(segments) if isinstance(renderable, Table) else segments


def _unpadded(segments: Iterable[Segment]) -> Iterator[Segment]:
    """The lines of a table without the spaces that fill its last column."""
    for line in Segment.split_lines(segments):
        while line and not line[-1].text.strip(" "):
            line.pop()
        if line:
            line[-1] = line[-1]._replace(text=line[-1].text.rstrip(" "))
        yield from (*line, Segment.line())


def console(stderr: bool = False, quiet: bool = False, soft_wrap: bool = True) -> Console:
    """A console for text, lines of any length (`soft_wrap`) and tables, on standard output or standard error."""
    return _Console(stderr=stderr, highlight=False, soft_wrap=soft_wrap, quiet=quiet)


class Display:
    """Prints progress to standard error; standard output is for results."""

    def __init__(self, silent: bool = False) -> None:
        self.console = console(stderr=True, quiet=silent)
        self._bar: Progress | None = None
        self._task: Any = None
        self._spoke = 0.0

    def say(self, text: str) -> None:
        """Print one line without markup; on a narrow terminal it is folded."""
        if self.console.is_terminal:
            text = folded(text, self.console.width)
        self.console.print(masked(text), markup=False)

    @contextmanager
    def watching(self, live: bool = True) -> Iterator[None]:
        """Context that shows the progress of long work (see `lmctl.core.progress`); short work shows nothing.
        `live=False`: by plain lines on a terminal, too, because results are printed meanwhile."""
        if self.console.quiet:
            yield
            return
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(over, live), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _watch(self, over: threading.Event, live: bool) -> None:
        if over.wait(PATIENCE_SECONDS):
            return
        if not (live and self.console.is_terminal):
            self._print_stage()
            while not over.wait(PLAIN_SECONDS):
                self._print_stage()
            return
        with self.console.status("", spinner="line") as line:
            while not over.wait(LIVE_SECONDS):
                line.update(escape(str(progress.now() or "")))

    def _print_stage(self) -> None:
        if (stage := progress.now()) is not None:
            self.say(str(stage))

    def start(self) -> None:
        """Start the progress bar."""
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
        """Show a line of metrics.jsonl; `progress` (0 to 1) is the share of the budget that is spent."""
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
"""Prefixes of per-task metrics that are left out of the line, because it would be too long."""


def describe(line: dict[str, Any], progress: float) -> str:
    """One line of metrics.jsonl as text."""
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
    """Text of the progress bar, most important values first, because a narrow terminal cuts off the end."""
    skipped = f"skipped {line['skipped_steps']}  " if line["skipped_steps"] else ""
    return (
        f"{left(line, progress)}  step {line['step']:,}  loss {line['loss']:.3f}  "
        f"{line['tokens_per_s']:,.0f} tokens/s  {skipped}lr {line['lr']:.2e}  "
        f"{line['peak_memory_bytes'] / 2**20:,.0f} MiB"
    )


def left(line: dict[str, Any], progress: float) -> str:
    """Estimated time for the rest of the budget, at the speed so far."""
    return f"{duration(line['seconds'] * (1 - progress) / progress if progress else 0.0)} left"


def folded(text: str, width: int) -> str:
    """Fold a text to lines of at most `width` columns, at two spaces or more, and what is longer still between words,
    except where a command is in it: commands stay in one piece and can be copied. Continuation lines are indented."""
    lines: list[str] = []
    for whole in text.splitlines():
        labelled = LABELLED.fullmatch(whole)
        if labelled is not None and cell_len(whole) > width and not COMMAND.search(whole):
            hanging = " " * cell_len(labelled[1])
            below = _between_words(hanging + labelled[2], width)
            lines += [labelled[1] + line[len(hanging) :] if not number else line for number, line in enumerate(below)]
            continue
        lines.append("")
        for gap, part in re.findall(r"( {2,}|^)(.+?)(?= {2,}|$)", whole):
            if lines[-1].strip() and cell_len(lines[-1] + gap + part) > width:
                lines.append("    " + part)
            else:
                lines[-1] += gap + part
    return "\n".join(part for line in lines for part in _between_words(line, width))


def _between_words(line: str, width: int) -> Iterator[str]:
    """The line in parts of at most `width` columns; whole if it has a command, or no space to cut it at."""
    if cell_len(line) > width and not COMMAND.search(line):
        indent = line[: len(line) - len(line.lstrip())]
        first, *words = line.split()
        line = indent + first
        for word in words:
            if cell_len(f"{line} {word}") > width:
                yield line
                line = f"{indent or '  '}{word}"
            else:
                line = f"{line} {word}"
    yield line


def print_lines(lines: Iterable[str]) -> None:
    """Print lines on standard output, folded on a terminal that is narrower."""
    out = console()
    for line in lines:
        out.print(folded(line, out.width) if out.is_terminal else line, markup=False)


def quiet_libraries() -> None:
    """Silence library messages that users cannot act on."""
    import logging
    import os
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module="torch|transformers|accelerate")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it recommends kernels from a hub
    with without_collector():
        import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def print_whole(whole: Table, short: Table) -> None:
    """Print a table without wrapping: files and pipes get `whole`, with lines of any length; a terminal that is too
    narrow for it gets `short`."""
    out = console(soft_wrap=False)
    natural = out.measure(whole, options=out.options.update(max_width=WIDEST)).maximum
    if natural > out.width and not out.is_terminal:
        out.width = natural
    out.print(whole if natural <= out.width else short)
