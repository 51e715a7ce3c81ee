"""Golden runs: does a change that should change no number change none, to the bit?

    python scripts/golden.py before.json                          # at the commit that is known to be right
    python scripts/golden.py after.json --against before.json     # at another: says what differs, and ends with 1
    python scripts/golden.py after.json --against before.json --only distill --only resume/

Each cell is some steps of a very small run, or a use of one, as commands in processes of their own: the lmctl that
PYTHONPATH or else the current directory gives, so that this file may lie elsewhere. Kept are every tensor of the
exported weights, every figure of metrics.jsonl, summary.json and the results of `eval` and `plan` that does not come
from the clock or the machine, and what verbs print. OUT.json has a digest of each; the folder OUT has the figures, so
that a comparison can name the first that differs. Cells that others read (--only distill needs teachers) are run too.

A command that is refused is recorded with its last lines, and does not end the others; the script then ends with 1.
About three minutes on two cores that are idle. Figures are those of one machine: compare on the same one, with the same
versions of Python and torch.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from goldens.cells import CELLS
from goldens.commands import Commands
from goldens.figures import Figures, difference, hash_of, of_output, of_results, of_run
from goldens.inputs import write_inputs

LIMIT = 300
"""Seconds that a command may take."""


class Refused(Exception):
    """A command that did not end with 0."""


@dataclass
class Kept:
    """What became of a cell."""

    name: str
    seconds: float = 0.0
    figures: dict[str, Figures] = field(default_factory=dict)
    failed: str | None = None

    @property
    def record(self) -> dict[str, Any]:
        hashes = {name: hash_of(figures) for name, figures in self.figures.items()}
        return {"seconds": round(self.seconds, 1), "failed": self.failed, "hashes": hashes}


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("out", type=Path, metavar="OUT.json", help="where the digests go; figures go beside it")
    options.add_argument("--only", action="append", default=[], help="cells whose name has this in it; may be repeated")
    options.add_argument("--jobs", type=int, default=2, help="cells at the same time")
    options.add_argument("--against", type=Path, metavar="BASE.json", help="compare with this run of the script")
    given = options.parse_args()
    base = json.loads(given.against.read_text())["cells"] if given.against else {}
    names = [name for name in CELLS if not given.only or any(word in name for word in given.only)]
    found = run(names, given.jobs)
    write(found, given.out)
    failed = [kept for kept in found if kept.failed]
    for kept in failed:
        print(f"FAILED  {kept.name}\n{kept.failed}")
    if not given.against:
        return int(bool(failed))
    differing = 0
    for kept in found:
        for line in compare(base.get(kept.name), given.against.with_suffix(""), kept):
            differing += 1
            print(f"DIFFERS {kept.name}: {line}")
    print(f"{len(found)} cells, {len(failed)} failed, {differing} differences")
    return int(bool(failed or differing))


def run(names: Iterable[str], jobs: int) -> list[Kept]:
    """The cells of these names and those that they need, each as soon as what it reads is there."""
    futures: dict[str, Future[Kept]] = {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        home = Path(folder)
        write_inputs(home)
        commands = Commands(home, LIMIT)

        def start(name: str) -> Kept:  # what it reads stands before it in the list, so that nothing waits for ever
            missing = [other for other in needs(name) if futures[other].result().failed]
            kept = Kept(name, failed=f"needs {missing[0]}, which failed") if missing else run_cell(commands, name)
            print(f"{kept.seconds:5.1f} s  {name}{'  FAILED' if kept.failed else ''}", file=sys.stderr, flush=True)
            return kept

        for name in closure(names):
            futures[name] = pool.submit(start, name)
        return [future.result() for future in futures.values()]


def needs(name: str) -> list[str]:
    """The cells whose runs the lines of this one name."""
    read = {word for line in CELLS[name] for word in re.findall(r"runs/([\w/]+)", line)}
    return [other for other in CELLS if other != name and any(f"{word}/".startswith(f"{other}/") for word in read)]


def closure(names: Iterable[str]) -> list[str]:
    wanted = set(names)
    for name in reversed(CELLS):
        if name in wanted:
            wanted.update(needs(name))
    return [name for name in CELLS if name in wanted]


def run_cell(commands: Commands, name: str) -> Kept:
    """Run the lines of a cell, and keep what they printed and wrote."""
    began, kept, home = time.monotonic(), Kept(name), commands.home
    try:
        for number, line in enumerate(CELLS[name], 1):
            said = home / f"{name.replace('/', '-')}-{number}"
            results = said.with_suffix(".json")
            words = shlex.split(line.replace("out=OUT", f"out={results.name}"))
            killed = words[0] == "kill"
            words = words[killed:]
            trains = words[0] in ("train", "distill")
            if trains and not any(word.startswith(("run_dir=", "resume=")) for word in words):
                words.append(f"run_dir=runs/{name}")
            if killed:
                kill(commands, words, said)
                continue
            printed = lmctl(commands, words, said)
            if results.exists():
                kept.figures[f"{number} {words[0]} results"] = of_results(results.read_text())
            elif not trains:
                kept.figures[f"{number} {words[0]}"] = of_output(printed)
        for file in sorted((home / "runs" / name).rglob("metrics.jsonl")):
            where = str(file.parent.relative_to(home / "runs" / name))
            for part, figures in of_run(file.parent).items():
                kept.figures[part if where == "." else f"{where} {part}"] = figures
    except Exception as error:
        kept.failed = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
    kept.seconds = time.monotonic() - began
    return kept


def lmctl(commands: Commands, words: list[str], said: Path) -> str:
    """What the command prints; Refused with its last lines if it does not end well."""
    code = commands.run(words, said)
    if code:
        last = "\n  ".join(Path(f"{said}.err").read_text().strip().splitlines()[-6:])
        raise Refused(f"lmctl {shlex.join(words)}\n  {last}\n  exit code {code}")
    if code is None:
        raise Refused(f"lmctl {shlex.join(words)}\n  took more than {commands.limit} s")
    return Path(f"{said}.out").read_text()


def kill(commands: Commands, words: list[str], said: Path) -> None:
    """Start a training run, and take its process away once a checkpoint is there."""
    (run,) = (word.removeprefix("run_dir=") for word in words if word.startswith("run_dir="))
    process = commands.start(words, said)
    while commands.ended(process) is None and not (commands.home / run / "checkpoints" / "latest").exists():
        time.sleep(0.005)
    process.kill()
    if commands.ended(process, LIMIT) not in (0, -signal.SIGKILL):
        raise Refused(f"lmctl {shlex.join(words)}\n  {Path(f'{said}.err').read_text()[-500:]}")


def write(found: list[Kept], out: Path) -> None:
    """Digests to `out`, figures to the folder of the same name."""
    records = {kept.name: kept.record for kept in found}
    out.write_text(json.dumps({"python": sys.version, "cells": records}, indent=1) + "\n")
    for kept in found:
        file = out.with_suffix("") / f"{kept.name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(kept.figures, indent=0, ensure_ascii=False) + "\n")


def compare(base: dict[str, Any] | None, folder: Path, kept: Kept) -> list[str]:
    """What differs between a cell's record in the base, whose figures are in `folder`, and now."""
    if base is None:
        return ["is not in the base"]
    if base["failed"] or kept.failed:
        return [] if base["failed"] and kept.failed else ["failed before" if base["failed"] else "fails now"]
    before, now = base["hashes"], kept.record["hashes"]
    file = folder / f"{kept.name}.json"
    figures = json.loads(file.read_text()) if file.exists() else {}
    lines = []
    for name in [*before, *(name for name in now if name not in before)]:
        if name not in now:
            lines.append(f"{name}: not kept now")
        elif name not in before:
            lines.append(f"{name}: not kept before")
        elif before[name] != now[name]:
            lines.append(f"{name}: {difference(figures.get(name, {}), kept.figures[name])}")
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
