"""How two sides of a benchmark take turns, each run in a process of its own, and what is said of their figures."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from common import parser

HERE = Path(__file__).resolve().parent


def turns_parser(summary: str, sides: Mapping[str, str]) -> argparse.ArgumentParser:
    """What can be said to a benchmark; `sides`: the script of each."""
    p = parser(summary)
    p.add_argument("--data", type=Path, help="a UTF-8 text; by default the help topics that come with Python")
    p.add_argument("--repeats", type=int, default=3, help="runs of each side")
    p.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of each side")
    p.add_argument("--only", choices=sides, help="run one side alone")
    return p


def run_side(script: str, args: Namespace, work: Path, environment: Mapping[str, str]) -> dict[str, float]:
    """Run one side once, and return its figures."""
    command = [sys.executable, str(HERE / script), "--work", str(work)]
    for name in ("steps", "warmup", "rows", "seq_len", "lr", "weight_decay", "seed"):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    threads = str(args.threads)
    every = {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    around = {**os.environ, **every, **environment}
    done = subprocess.run(command, cwd=work, env=around, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{script} ended with status {done.returncode}:\n{done.stderr[-3000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def take_turns(
    args: Namespace,
    sides: Mapping[str, str],
    prepare: Callable[[Path], None],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Have `prepare` write the work folder, run all sides `args.repeats` times, and print medians and ratios."""
    names = [args.only] if args.only else list(sides)
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in names}
    with tempfile.TemporaryDirectory(prefix="lmctl-bench-") as folder:
        prepare(Path(folder))
        for repeat in range(args.repeats):
            for side in names if repeat % 2 == 0 else names[::-1]:  # neither always goes first
                figures = run_side(sides[side], args, Path(folder), environment or {})
                runs[side].append(figures)
                print(f"{repeat + 1}/{args.repeats} {side}:", *(f"{k}={v:.5g}" for k, v in figures.items()), flush=True)
    print(f"\n{args.rows} x {args.seq_len} tokens per step, {args.steps} steps, {args.threads} threads, medians:\n")
    print("| side  | tokens per CPU-second | tokens per second | peak memory MB | held-out loss |")
    print("|-------|----------------------:|------------------:|---------------:|--------------:|")
    columns = ("tokens_per_cpu_second", "tokens_per_second", "peak_rss_mb", "heldout_loss")
    for side in names:
        cpu, wall, memory, loss = (median(run[name] for run in runs[side]) for name in columns)
        print(f"| {side:5} | {cpu:21.0f} | {wall:17.0f} | {memory:14.0f} | {loss:13.3f} |")
    if not args.only:
        print(f"\nmemory: {_ratio(runs, 'peak_rss_mb'):.2f}")
        print(f"ratio: {_ratio(runs, 'tokens_per_cpu_second'):.2f}")


def _ratio(runs: Mapping[str, list[dict[str, float]]], name: str) -> float:
    """lmctl to peer. Two runs that follow each other meet the same load, so each pair is compared first."""
    return median(ours[name] / theirs[name] for ours, theirs in zip(runs["lmctl"], runs["peer"], strict=True))
