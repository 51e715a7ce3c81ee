"""What each option learns in the same time: runs that differ in one setting, over several seeds, in turn.

A budget of minutes is counted in CPU time of the run's own process, so that whatever else the machine does makes no
difference (`--clock wall` counts real time, for GPUs and for several threads). All runs of a seed see the same rows in
the same order. Beside each option's mean stand its standard error over the seeds, and the mean and the standard error
of the difference to the first option, seed by seed: what two runs with one seed have in common falls out of it.

    python scripts/bench/learning.py --base "mix=mlm" "" "optim=muon" "model=modernbert_tiny"
    python scripts/bench/learning.py --minutes 5 --seeds 1 2 3 4 5 --out learning.jsonl "" "average=ema"

An option is a list of settings in quotation marks; "" is the default. Results are appended to --out, and a run that is
there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

from seeds import Line, over_seeds, with_error

RUN = """
import sys, time, types
import lmctl.train.trainer as trainer
if sys.argv.pop(1) == "cpu":  # the trainer's clock alone: what waits for something goes on by real time
    trainer.time = types.SimpleNamespace(monotonic=time.process_time, process_time=time.process_time)
from lmctl.cli.main import main
raise SystemExit(main(sys.argv[1:]))
"""
RARELY = 10**9
"""No validations but the first and the last, whose time would be counted."""


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("options", nargs="+", help="settings of each option, the one to compare with first")
    p.add_argument("--base", default="mix=mlm", help="settings of all runs")
    p.add_argument("--minutes", type=float, default=2.0, help="budget of a run")
    p.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    p.add_argument("--metric", default="corpus/mlm", help="validation metric, lower is better")
    p.add_argument("--out", type=Path, default=Path("learning.jsonl"))
    return p.parse_args()


def run(option: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Steps, tokens and the metric of one run."""
    with tempfile.TemporaryDirectory(prefix="lmctl-learning-") as folder:
        words = [*shlex.split(args.base), *shlex.split(option), f"seed={seed}", f"budget.minutes={args.minutes:g}"]
        words += [f"run_dir={folder}/run", f"eval.every={RARELY}", "log.every=100"]
        command = [sys.executable, "-c", RUN, args.clock, "train", *words]
        around = {**os.environ} | ({"OMP_NUM_THREADS": "1"} if args.clock == "cpu" else {})
        done = subprocess.run(
            command, env=around, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{option!r} ended with status {done.returncode}:\n{done.stderr[-3000:]}")
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text())
    return {name: summary[name] for name in ("steps", "tokens")} | {"value": summary["valid"][args.metric]}


def measured(args: argparse.Namespace) -> dict[tuple[str, int], Line]:
    """All runs, by option and seed."""
    same = {"base": args.base, "minutes": args.minutes, "clock": args.clock, "metric": args.metric}
    return over_seeds(
        args.out,
        args.options,
        args.seeds,
        same,
        lambda option, seed: run(option, seed, args),
        lambda line: f"{line['value']:.4f} in {line['steps']:,} steps",
    )


def table(args: argparse.Namespace, found: dict[tuple[str, int], Line]) -> str:
    """The Markdown table."""
    lines = [f"| option | steps | tokens | {args.metric} | difference |", "|---|---:|---:|---:|---:|"]
    first = args.options[0]
    for option in args.options:
        runs = [found[option, seed] for seed in args.seeds]
        values = [line["value"] for line in runs]
        apart = [line["value"] - found[first, seed]["value"] for seed, line in zip(args.seeds, runs, strict=True)]
        steps, tokens = (round(mean(line[name] for line in runs)) for name in ("steps", "tokens"))
        difference = "" if option == first else with_error(apart, "+")
        name = f"`{option}`" if option else "default"
        lines.append(f"| {name} | {steps:,} | {tokens:,} | {with_error(values)} | {difference} |")
    return "\n".join(lines)


def main() -> None:
    args = arguments()
    found = measured(args)
    print(f"\n`{args.base}`, {args.minutes:g} minutes ({args.clock} time), seeds {args.seeds}\n")
    print(table(args, found))


if __name__ == "__main__":
    main()
