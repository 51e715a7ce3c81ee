"""From the command to the first optimiser step: wall and CPU seconds, the text being in the cache.

lmctl's side is the default run, whose record is watched until its first step is written; the peer is a script over
`transformers.Trainer` (peer_mlm.py), which tokenises the same built-in text.

    python scripts/bench/starting.py
    python scripts/bench/starting.py --words precision=bf16 model=bert_mini
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from statistics import median

import mlm
import psutil
from page import machine, place, show, table
from turns import Figures, Side, environment, in_turns, run_side, turns_parser

AGAIN = 0.02
"""Seconds between two looks at the record."""


def until_first_step(words: list[str], folder: Path, around: dict[str, str]) -> Figures:
    """Start `lmctl train WORDS`, and stop it as soon as its first step is recorded."""
    run = Path(tempfile.mkdtemp(dir=folder))
    command = [sys.executable, "-m", "lmctl", "train", *words, "log.every=1", f"run_dir={run / 'run'}"]
    record, began = run / "run" / "metrics.jsonl", time.perf_counter()
    with open(run / "said", "w") as said:
        process = subprocess.Popen(command, cwd=folder, env=around, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        while not (record.is_file() and '"split": "train"' in record.read_text(encoding="utf-8")):
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command)} ended:\n{(run / 'said').read_text()}")
            time.sleep(AGAIN)
        seconds, cpu = time.perf_counter() - began, cpu_of(process.pid)
        process.terminate()
        process.wait()
    return {"first_step_s": seconds, "first_step_cpu_s": cpu}


def cpu_of(pid: int) -> float:
    """CPU seconds of a process and its children so far."""
    whole = psutil.Process(pid)
    times = [process.cpu_times() for process in (whole, *whole.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def main() -> None:
    p = turns_parser(__doc__)
    p.add_argument("--words", nargs="*", default=[], help="words of lmctl train")
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="lmctl-bench-") as temporary:
        folder = Path(temporary)
        around = environment(args) | {"LMCTL_CACHE": str(folder / "cache")}
        mlm.prepare(args, folder)
        until_first_step(args.words, folder, around)  # fills the cache

        def run(name: str) -> Figures:
            if name == "lmctl":
                return until_first_step(args.words, folder, around)
            once = Namespace(**(vars(args) | {"steps": 2, "warmup": 1}))
            return run_side(Side("peer_mlm.py"), once, folder, {})

        runs = in_turns([args.only] if args.only else ["lmctl", "Trainer"], args.repeats, run)
    columns = ("first_step_s", "first_step_cpu_s")
    rows = [[side, *(f"{median(run[name] for run in mine):.1f}" for name in columns)] for side, mine in runs.items()]
    said = (
        f"lmctl train {' '.join(args.words)}".strip()
        + f", medians of {args.repeats} starts, {args.threads} thread{'s' * (args.threads != 1)}, on "
    )
    lines = [f"{said}{machine(args.isa)}:", "", *table(["", "seconds", "CPU-seconds"], rows)]
    show(place("starting", args.isa), lines, args.write)


if __name__ == "__main__":
    main()
