"""What lmctl does on a GPU: some hundred commands of the command line, each in a process of its own, many at a time.

Every kind of model, mix, precision, distillation, adversary and compression is trained for some steps, and models are
used; runs that are stopped and resumed must end with the same bits as undisturbed ones; `lmctl plan` is compared
with the memory that torch allocated; the same run on the CPU must learn the same.

    python scripts/bench/gpu_cells.py --out DIR                    # 5 minutes on 16 cores; a table on standard output
    python scripts/bench/gpu_cells.py --out DIR --only int8 resume # cells whose names contain one of these, and theirs
    python scripts/bench/gpu_cells.py --out DIR --device cpu       # without a GPU, to try the script itself
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu_commands import LINES, LONG, PLANNED, RESUMED, SHORT, TRAINED, USED

ROOT = Path(__file__).resolve().parent.parent.parent
TIMING = {"seconds", "tokens_per_s", "peak_memory_bytes"}
"""Keys of metrics.jsonl that depend on the clock or the machine."""

SAME_LOSS = ["accumulated", "checkpointing", "without dropout, CPU"]
"""Runs that must learn what "without dropout" learns, but for the order of sums."""
NEAR = 0.05
"""Of the reference's loss at the end: how far a run in another precision may be from it."""


@dataclass
class Cell:
    """One command, and what came of it."""

    name: str
    words: list[str]
    run: str | None = None
    """Directory of the run below `runs/`."""
    stop: bool = False
    """Stop it by SIGTERM in the middle, and go on."""
    needs: set[str] = field(default_factory=set)
    """Runs that must be there."""
    status: str = "not run"
    seconds: float = 0.0
    said: str = ""
    found: dict[str, Any] = field(default_factory=dict)


def slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "_")


def cells(device: str) -> list[Cell]:
    """All of them, what takes longest first."""
    place = "cpu" if device == "cpu" else "gpu"

    def cell(name: str, line: str, *more: str, run: str | None = None, stop: bool = False) -> Cell:
        words = shlex.split(line)
        if not words or "=" in words[0]:
            words.insert(0, "train")
        words += [word for text in more for word in shlex.split(text)]
        if not any(word.startswith("runner=") for word in words):
            words.append(f"runner={place}")
        if run is not None:
            words.append(f"name={run}")
        needs = set(re.findall(r"=runs/([^/ ]+)", " ".join(words)))
        return Cell(name, words, run, stop, needs)

    made = [cell(name, line, SHORT, run=slug(name)) for name, line in TRAINED.items()]
    first = {"compiled", "fp32", "gpt2", "transformer_mt", "classify"}
    made.sort(key=lambda one: one.name not in first)
    made += [cell(name, line) for name, line in USED.items()]
    for name, line in PLANNED.items():
        steps = "budget.steps=6 eval.rows=8 eval.every=100"
        made.append(cell(f"plan: {name}", f"plan {line}", steps, f"out=plan-{slug(name)}.json"))
        made.append(cell(f"plan, measured: {name}", line, steps, run=f"plan-{slug(name)}"))
    for name, line in RESUMED.items():
        for which in ("undisturbed", "stopped"):
            run = f"{which}-{slug(name)}"
            made.append(cell(f"resume: {name}, {which}", line, LONG, run=run, stop=which == "stopped"))
    return made


def wanted(every: list[Cell], only: list[str], without: list[str]) -> list[Cell]:
    """Those whose names contain one of the words (and none of those `without`), and the runs that they need."""
    chosen = [one for one in every if not only or any(word in one.name for word in only)]
    chosen = [one for one in chosen if not any(word in one.name for word in without)]
    while missing := {run for one in chosen for run in one.needs} - {one.run for one in chosen}:
        chosen = [one for one in every if one.run in missing] + chosen
    return chosen


class Bench:
    """Runs cells in one folder."""

    def __init__(self, folder: Path, deadline: float, limit: float) -> None:
        self.folder, self.deadline, self.limit = folder, deadline, limit
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        own = {"LMCTL_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "COLUMNS": "160"}
        self.environment = os.environ | own | {"HF_HUB_OFFLINE": "1"}
        (folder / "lines.txt").write_text(LINES, encoding="utf-8")

    def do(self, cell: Cell) -> Cell:
        began = time.monotonic()
        end = min(self.deadline, began + self.limit)
        try:
            code = 0
            if cell.stop:
                code = self._command(cell, end, stop=True)
                cell.found["stopped"] = code
                code = 0 if code in (0, 75) else code
            code = code or self._command(cell, end)
            cell.status = "ok" if code == 0 else f"ended with {code}"
        except subprocess.TimeoutExpired:
            cell.status = "out of time"
        cell.seconds = time.monotonic() - began
        if cell.run is not None:
            cell.found |= self._figures(self.folder / "runs" / cell.run)
        return cell

    def _command(self, cell: Cell, end: float, stop: bool = False) -> int:
        words, stdin = cell.words, subprocess.DEVNULL
        if "<" in words:
            words, file = words[: words.index("<")], words[words.index("<") + 1]
            stdin = os.open(self.folder / file, os.O_RDONLY)
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
            command = [sys.executable, "-m", "lmctl", *words]
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdin=stdin, stdout=said, stderr=subprocess.STDOUT
            )
            try:
                if stop:
                    self._stop(process, self.folder / "runs" / str(cell.run) / "metrics.jsonl", end)
                code = process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
            finally:
                said.seek(0)
                cell.said += said.read()
        return code

    def _stop(self, process: subprocess.Popen[Any], metrics: Path, end: float) -> None:
        """SIGTERM once so many steps are on record."""
        while process.poll() is None and time.monotonic() < end:
            if metrics.exists() and sum('"split": "train"' in line for line in metrics.read_text().splitlines()) >= 8:
                process.send_signal(signal.SIGTERM)
                return
            time.sleep(0.01)

    def _figures(self, run: Path) -> dict[str, Any]:
        """What the run says of itself."""
        if not (run / "summary.json").exists():
            return {}
        summary = json.loads((run / "summary.json").read_text())
        valid = [line["loss"] for line in metrics_of(run) if line.get("split") == "valid"]
        return {
            "first": valid[0] if valid else None,
            "last": valid[-1] if valid else None,
            "peak": summary["peak_memory_bytes"],
            "speed": summary["training_tokens_per_second"],
            "skipped": summary["skipped_steps"],
            "proof": summary["precision"].get("proof"),
        }


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what the clock decides."""
    file = run / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [{key: value for key, value in line.items() if key not in TIMING} for line in lines]


def run_all(bench: Bench, chosen: list[Cell], workers: int) -> None:
    """Each as soon as the runs that it needs are there."""
    waiting, done = list(chosen), set[str]()
    with ThreadPoolExecutor(workers) as pool:
        running: set[Future[Cell]] = set()
        while waiting or running:
            ready = [one for one in waiting if one.needs <= done][: workers - len(running)]
            waiting = [one for one in waiting if one not in ready]
            running |= {pool.submit(bench.do, one) for one in ready}
            if not running:  # what they need was never there
                break
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for cell in (future.result() for future in finished):
                print(f"{cell.name}: {cell.status}, {cell.seconds:.0f} s", file=sys.stderr, flush=True)
                if cell.run is not None:
                    done.add(cell.run)
            if time.monotonic() > bench.deadline:
                waiting = []


def compare(folder: Path, chosen: Iterable[Cell]) -> list[str]:
    """What must hold between cells, as lines that begin with `ok`, `off` or `not run`."""
    by, said = {one.name: one for one in chosen}, []

    def figure(name: str, key: str) -> float | None:
        return by[name].found.get(key) if name in by else None

    for name in SAME_LOSS:
        ours, theirs = figure(name, "last"), figure("without dropout", "last")
        if ours and theirs:
            off = abs(ours - theirs) / theirs
            said.append(f"{'ok' if off < 1e-3 else 'off'}: {name}: loss {ours:.5f}, plain {theirs:.5f} ({off:.1e})")
    for name, line in TRAINED.items():
        ours, theirs = figure(name, "last"), figure("fp32", "last")
        if line.startswith("mix=mlm precision=") and "lora" not in line and ours and theirs:
            off = abs(ours - theirs) / theirs
            said.append(f"{'ok' if off < NEAR else 'off'}: {name}: loss {ours:.4f}, fp32 {theirs:.4f} ({off:.1e})")
    for name in RESUMED:
        runs = [folder / "runs" / f"{which}-{slug(name)}" for which in ("undisturbed", "stopped")]
        said.append(f"{alike(*runs)}: {name}: stopped and resumed, the same bits")
    for name in PLANNED:
        file, peak = folder / f"plan-{slug(name)}.json", figure(f"plan, measured: {name}", "peak")
        if file.exists() and peak:
            predicted = json.loads(file.read_text())["memory"]["peak_bytes"]
            ratio = predicted / peak
            verdict = "ok" if 0.85 <= ratio <= 1.15 else "off"
            said.append(f"{verdict}: plan, {name}: {predicted / 2**20:,.0f} of {peak / 2**20:,.0f} MiB, x {ratio:.2f}")
    for one in ("generate, greedy", "score", "predict"):
        other = f"{one}, CPU"
        if one in by and other in by:
            same = rounded(by[one].said) == rounded(by[other].said)
            said.append(f"{'ok' if same else 'off'}: {one}: as on the CPU")
    return said


def rounded(text: str) -> str:
    """`text`, its numbers to three places."""
    return re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.3f}", text)


def alike(one: Path, other: Path) -> str:
    """Whether two runs have the same bits, and where their losses part if not."""
    files = [run / "model" / "model.safetensors" for run in (one, other)]
    if not all(file.exists() for file in files):
        return "not run"
    left, right = metrics_of(one), metrics_of(other)
    parts = next((a.get("step") for a, b in zip(left, right, strict=False) if a != b), None)
    if parts is not None:
        return f"off (losses part at step {parts})"
    return "ok" if files[0].read_bytes() == files[1].read_bytes() else "off (weights differ)"


def table(chosen: Iterable[Cell]) -> Iterable[str]:
    yield f"| {'cell':45} | {'status':14} |   s | first loss | last loss | peak MiB |"
    yield f"|{'-' * 47}|{'-' * 16}|----:|-----------:|----------:|---------:|"
    for one in chosen:
        first, last, peak = (one.found.get(key) for key in ("first", "last", "peak"))
        figures = [f"{value:.4f}" if value is not None else "" for value in (first, last)]
        mib = f"{peak / 2**20:,.0f}" if peak is not None else ""
        losses = f"{figures[0]:>10} | {figures[1]:>9}"
        yield f"| {one.name:45} | {one.status:14} | {one.seconds:3.0f} | {losses} | {mib:>8} |"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, help="folder for the report, cells.json and cells.log")
    p.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    p.add_argument("--only", nargs="*", default=[], help="words, one of which a cell's name must contain")
    p.add_argument("--without", nargs="*", default=[], help="words, none of which it may contain")
    p.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2), help="cells at a time")
    p.add_argument("--seconds", type=float, default=450, help="after which no cell goes on")
    p.add_argument("--limit", type=float, default=120, help="seconds of one cell")
    arguments = p.parse_args()
    chosen = wanted(cells(arguments.device), arguments.only, arguments.without)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lmctl-gpu-") as temporary:
        folder = Path(temporary)
        bench = Bench(folder, time.monotonic() + arguments.seconds, arguments.limit)
        run_all(bench, chosen, arguments.workers)
        compared = compare(folder, chosen)
    lines = [*table(chosen), "", *compared]
    failed = [one for one in chosen if one.status != "ok"]
    log = "\n".join(f"=== {one.name}: {one.status}\nlmctl {shlex.join(one.words)}\n{one.said}" for one in chosen)
    (arguments.out / "cells.log").write_text(log, encoding="utf-8")
    report = [{k: v for k, v in vars(one).items() if k not in ("said", "needs")} for one in chosen]
    (arguments.out / "cells.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (arguments.out / "cells.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))
    print(f"\n{len(chosen) - len(failed)} of {len(chosen)} cells ok")
    sys.exit(1 if failed or any(not line.startswith("ok") for line in compared) else 0)


if __name__ == "__main__":
    main()
