"""How the sides of a benchmark take turns, each run in a process of its own, and the table of their figures."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from common import SETTINGS, parser
from page import LIMITS, limited, machine, place, show, table

HERE = Path(__file__).resolve().parent
Figures = dict[str, float]


@dataclass(frozen=True)
class Side:
    """A side's script and its words; `precision`: another than that of the benchmark."""

    script: str
    words: Sequence[str] = ()
    precision: str | None = None


def ours(*words: str, verb: str = "train", precision: str | None = None) -> Side:
    """lmctl with these words besides the settings that both sides have."""
    return Side("lmctl_side.py", [verb, *words], precision)


def turns_parser(doc: str | None) -> argparse.ArgumentParser:
    """What can be said to a benchmark; `doc`: its docstring."""
    summary, _, details = (doc or "").partition("\n\n")
    p = parser(summary)
    p.epilog = details.partition("\n\n")[0]
    p.add_argument("--data", type=Path, help="a UTF-8 text; without it, one that comes with Python or lmctl")
    p.add_argument("--repeats", type=int, default=5, help="runs of each side")
    p.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of each side")
    p.add_argument("--only", help="run one side alone")
    p.add_argument("--isa", choices=LIMITS, help="compute as on a CPU that has no newer units than these")
    p.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    return p


def environment(args: Namespace) -> dict[str, str]:
    """Environment variables of a side."""
    threads = str(args.threads)
    own = {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return {**os.environ, **own, **limited(args.isa)}


def run_side(side: Side, args: Namespace, work: Path, more: Mapping[str, str]) -> Figures:
    """Run one side once, and return its figures."""
    command = [sys.executable, str(HERE / side.script), "--work", str(work)]
    command += ["--precision", side.precision or args.precision]
    for name in SETTINGS:
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    return figures([*command, *side.words], work, {**environment(args), **more})


def figures(command: Sequence[str], folder: Path, around: Mapping[str, str]) -> Figures:
    """The line of figures that `command` prints at its end; SystemExit with its last words if it fails."""
    done = subprocess.run(command, cwd=folder, env=around, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr[-3000:]}")
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def in_turns(names: Sequence[str], repeats: int, run: Callable[[str], Figures]) -> dict[str, list[Figures]]:
    """`run` every name `repeats` times in turn; said on standard error as it comes."""
    runs: dict[str, list[Figures]] = {name: [] for name in names}
    for repeat in range(repeats):
        for name in names if repeat % 2 == 0 else names[::-1]:  # none always goes first
            found = run(name)
            runs[name].append(found)
            line = " ".join(f"{key}={value:.5g}" for key, value in found.items())
            print(f"{repeat + 1}/{repeats} {name}: {line}", file=sys.stderr, flush=True)
    return runs


COLUMNS = {
    "tokens_per_cpu_second": "tokens per CPU-second",
    "tokens_per_second": "tokens per second",
    "peak_rss_mb": "peak memory MB",
}


def compared(runs: Mapping[str, Sequence[Figures]], columns: Mapping[str, str], against: str) -> list[list[str]]:
    """Rows of a table: each side's median in each column, and its ratio to the side `against`. Two runs that follow
    each other meet the same load, so each pair is compared first."""
    rows = []
    for side, mine in runs.items():
        row = [side]
        for name in columns:
            row.append(f"{median(run[name] for run in mine):,.4g}".replace("e+03", "000"))
            if len(runs) > 1:
                pairs = zip(mine, runs[against], strict=True)
                row.append(f"{median(one[name] / other[name] for one, other in pairs):.2f}")
        rows.append(row)
    return rows


def take_turns(
    args: Namespace,
    sides: Mapping[str, Side],
    prepare: Callable[[Path], None],
    against: str = "Trainer",
    more: Mapping[str, str] | None = None,
    at: str | None = None,
) -> None:
    """Have `prepare` write the work folder, run all sides `args.repeats` times, print medians and ratios, and write
    them to the place `at` in the page, which is named after the script and its settings unless said."""
    if args.only and args.only not in sides:
        raise SystemExit(f"--only {args.only}: the sides are {', '.join(sides)}")
    chosen = [args.only] if args.only else list(sides)
    with tempfile.TemporaryDirectory(prefix="lmctl-bench-") as folder:
        prepare(Path(folder))
        runs = in_turns(chosen, args.repeats, lambda name: run_side(sides[name], args, Path(folder), more or {}))
    heads = [head for name in COLUMNS.values() for head in ((name, "ratio") if len(chosen) > 1 else (name,))]
    rows = compared(runs, COLUMNS, args.only or against)
    for row, side in zip(rows, chosen, strict=True):
        row.append(f"{median(run['heldout_loss'] for run in runs[side]):.3f}")
    threads = f"{args.threads} thread{'s' * (args.threads != 1)}"
    measured = f"{args.steps} steps of which {args.warmup} are not measured, {threads}"
    said = (
        f"{args.model}, {args.rows} x {args.seq_len} tokens a step, {measured}, medians of {args.repeats} runs of each "
        f"side in turn, on {machine(args.isa)}:"
    )
    name = at or f"{Path(sys.argv[0]).stem} {args.model} {args.precision}"
    show(place(name, args.isa), [said, "", *table(["", *heads, "held-out loss"], rows)], args.write)
