"""Reliability matrix: kills and faults over the spread of cells, and what became of them as a table in the docs.

    python scripts/reliability.py                              # 1,000 kills, then every fault once
    python scripts/reliability.py --kills 100 --every 0        # only so many kills
    python scripts/reliability.py --only power --only distill  # faults and cells with such a word in their names
    python scripts/reliability.py --write                      # the table of what is recorded, into docs/reliability.md

Every run that was disturbed must end with the bits of one that was not: weights, metrics, summary, exported model. Exit
codes are 0, 75, 130 or those of a refusal in words; no traceback is printed, no partial directory is left, and every
checkpoint with the name of a whole one is whole. What fails is printed, its folder is kept, and the script ends with 1.

What is done is appended to --record as a line of JSON, so that the same command goes on where it was stopped; lines of
other commits do not count. Commands are forked from a process that has imported the libraries; where the table says so
they are processes of their own. Small disks are mounted where the script may: as root, or in a namespace of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parent.parent))  # lmctl, where it is not installed

from fault_injection.disk import may_mount
from fault_injection.plan import EVENT_CELL, READERS, Inputs, OneFault, at_events, chosen, faults, rounds
from fault_injection.processes import ENVIRONMENT, load_libraries
from fault_injection.table import kills_in, table, write_table
from fault_injection.workers import Line, Task, append_record, read_record, try_all
from fault_injection.workshop import Workshop

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--kills", type=int, default=1000, help="so many at least")
    options.add_argument("--every", type=int, default=1, metavar="N", help="of each kind of fault one in N; 0: none")
    options.add_argument("--inputs", type=int, default=0, help="random inputs for each reader (scripts/fuzz.py)")
    options.add_argument("--only", action="append", default=[], metavar="WORD", help="names with WORD; may be repeated")
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="commands at the same time")
    options.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing more after so many")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--record", type=Path, default=Path("reliability.jsonl"), help="what was done; gone on with")
    options.add_argument(
        "--write", action="store_true", help="only write the table of the record into docs/reliability.md"
    )
    given = options.parse_args()
    commit = _commit()
    lines = read_record(given.record, commit)
    if given.write:
        write_table(ROOT / "docs" / "reliability.md", lines, commit)
    else:
        try:
            _go_on(given, lines, commit)
        except KeyboardInterrupt:
            print("stopped; the same command goes on", file=sys.stderr)
    print(table(lines))
    failed = [line for line in lines if line["problems"]]
    for line in failed:
        print(f"FAILED {line['name']}", *(f"  {problem}" for problem in line["problems"]), sep="\n")
    return int(bool(failed))


def _go_on(given: argparse.Namespace, lines: list[Line], commit: str) -> None:
    """Try what is not in the record yet, and add it to the record and to `lines`."""
    os.environ.update(ENVIRONMENT | {"PYTHONPATH": str(ROOT)})
    load_libraries()
    home = Path(tempfile.mkdtemp(prefix="reliability-"))
    disks = may_mount()  # before workers are forked, which are then in the same namespace
    deadline = time.monotonic() + 60 * given.minutes
    done = {line["name"] for line in lines}

    def left() -> Iterator[Task]:
        for task in _tasks(given, home, lines, disks):
            if time.monotonic() > deadline:
                return
            if task.name not in done:
                yield task

    failures = 0
    for line in try_all(left(), home, given.jobs):
        line |= {"commit": commit}
        append_record(given.record, line)
        lines.append(line)
        failures += bool(line["problems"])
        print(
            f"{line['seconds']:6.1f} s  {'FAILED  ' if line['problems'] else ''}{line['name']}",
            file=sys.stderr,
            flush=True,
        )
    if failures:
        print(f"what failed lies in {home}", file=sys.stderr)
    else:
        shutil.rmtree(home)


def _tasks(given: argparse.Namespace, home: Path, lines: list[Line], disks: bool) -> Iterator[Task]:
    """Kills at events, random ones until there are enough, random inputs, faults."""
    workshop, cells = Workshop(home / "lists"), chosen(given.only)
    if EVENT_CELL in cells and not given.only:
        yield from at_events(workshop, EVENT_CELL, given.kills // 4)
    for task in rounds(cells, given.seed) if cells else ():
        if kills_in(lines) >= given.kills:
            break
        yield task
    if given.inputs:
        yield from (Inputs(reader, given.inputs, given.seed) for reader in READERS)
    if given.every:
        yield from (OneFault(fault) for fault in faults(workshop, given.every, given.only, disks))


def _commit() -> str:
    """The commit, with a mark where files differ from it."""
    words = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    raise SystemExit(main())
