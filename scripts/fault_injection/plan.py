"""What is to be tried: rounds of kills until there are enough, every fault once, and random inputs for every reader."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_injection import clocks, damage, disk, jobs, power_cut
from fault_injection.cells import CELLS
from fault_injection.fault import Fault
from fault_injection.kills import kill_at_event, kill_round
from fault_injection.workshop import Workshop

EVENT_CELL, FAULT_CELL, CACHED_CELL = "mlm_fp16", "mlm_fp16", "distill_cached"
FUZZ = Path(__file__).resolve().parents[1] / "fuzz.py"
READERS = ("nbest", "pairs", "lines", "csv", "tsv", "jsonl", "parquet", "rows", "text", "parallel", "cache", "files",
           "prompts", "models", "configs", "help", "words")  # fmt: skip
TALLY = re.compile(r"([\d,]+) inputs .* ([\d,]+) failures")


@dataclass(frozen=True)
class Rounds:
    """Kills of one cell: `how` is `random`, `command` or `event`; `number` is that of the round, or of the event."""

    how: str
    cell: str
    number: int
    seed: int

    @property
    def name(self) -> str:
        return f"kills/{self.how}/{self.cell}/{self.number}/{self.seed}"

    def try_it(self, workshop: Workshop) -> dict[str, Any]:
        if self.how == "event":
            found = kill_at_event(workshop, self.cell, self.number)
        else:
            found = kill_round(workshop, self.cell, self.number, self.seed, real=self.how == "command")
        return found.record


@dataclass(frozen=True)
class OneFault:
    """A fault as a task."""

    fault: Fault

    @property
    def name(self) -> str:
        return self.fault.name

    def try_it(self, workshop: Workshop) -> dict[str, Any]:
        return {"kind": "fault", "family": self.fault.family, "problems": self.fault.try_it(workshop)}


@dataclass(frozen=True)
class Inputs:
    """Random inputs for one reader, by scripts/fuzz.py."""

    reader: str
    number: int
    seed: int

    @property
    def name(self) -> str:
        return f"inputs/{self.reader}/{self.seed}/{self.number}"

    def try_it(self, workshop: Workshop) -> dict[str, Any]:
        words = [sys.executable, str(FUZZ), self.reader, f"--inputs={self.number}", f"--seed={self.seed}"]
        done = subprocess.run(words, cwd=workshop.home, capture_output=True, text=True, check=False)
        tally = TALLY.search(done.stdout)
        count = int(tally[1].replace(",", "")) if tally else 0
        problems = [] if tally and done.returncode == 0 else [(done.stdout + done.stderr)[-400:]]
        return {"kind": "inputs", "family": self.reader, "count": count, "problems": problems}


def rounds(cells: list[str], seed: int) -> Iterator[Rounds]:
    """Random kills without end: every cell in turn, and one round of sixteen by the command."""
    number = 0
    while True:
        for cell in cells:
            yield Rounds("random", cell, number, seed)
        for cell in cells[(14 - number) % 15 :: 15]:
            yield Rounds("command", cell, number, seed)
        number += 1


def at_events(workshop: Workshop, cell: str, most: int) -> list[Rounds]:
    """A kill before every event of a run, or before so many of them."""
    count = len(workshop.reference(cell).events)
    every = max(1, -(-count // most)) if most else count
    return [Rounds("event", cell, number, 0) for number in range(1, count + 1, every)] if most else []


SOURCES: dict[str, Callable[[Workshop], Iterator[Fault]]] = {
    "processes": jobs.process_faults,
    "verbs": jobs.verb_faults,
    f"read-only/{FAULT_CELL}": lambda workshop: disk.read_only(workshop, FAULT_CELL),
    f"clock/{FAULT_CELL}": lambda workshop: clocks.clock_jumps(workshop, FAULT_CELL),
    f"damage/{FAULT_CELL}": lambda workshop: damage.damages(workshop, FAULT_CELL),
    f"damage/{CACHED_CELL}": lambda workshop: damage.damages(workshop, CACHED_CELL, parts=("cache",)),
    f"models/{FAULT_CELL}": lambda workshop: damage.damaged_models(workshop, FAULT_CELL),
    f"cleaner/{FAULT_CELL}": lambda workshop: damage.lost_caches(workshop, FAULT_CELL, 30),
    f"errors/{FAULT_CELL}": lambda workshop: disk.errors(workshop, FAULT_CELL),
    f"power/{FAULT_CELL}": lambda workshop: power_cut.power_cuts(workshop, FAULT_CELL),
    f"full/{FAULT_CELL}": lambda workshop: disk.full(workshop, FAULT_CELL),
}
"""Where faults come from, by what their names begin with."""
MOUNTED = ("read-only", "full")
"""Faults that need a disk of their own."""


def faults(workshop: Workshop, every: int, only: list[str], disks: bool) -> Iterator[Fault]:
    """One fault in `every` of each source, of those whose names have one of the words in them, or of all; `disks`:
    whether this process may mount some."""
    for begins, source in SOURCES.items():
        wanted = not only or any(word in begins or word.startswith(begins) for word in only)
        if wanted and (disks or not begins.startswith(MOUNTED)):
            named = [fault for fault in source(workshop) if not only or any(word in fault.name for word in only)]
            yield from named[::every]


def chosen(only: list[str]) -> list[str]:
    """Cells whose names have one of these words in them; all if there are no words."""
    return [cell for cell in CELLS if not only or any(word in f"kills/{cell}" for word in only)]
