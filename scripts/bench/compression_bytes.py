"""What gradient compression saves on the wire: bytes that the kernel saw on the loopback interface.

Two processes on the CPU train `model=bert_tiny`, once per side. From the end of the warm-up to the last step, all
bytes on `lo` are counted (TCP, control messages and all) and set beside those that lmctl says its gradients took. Each
side runs in a network namespace of its own where the system allows that; elsewhere other programs' traffic on `lo`
counts too.

    python scripts/bench/compression_bytes.py                                  # some minutes; 60 steps a side
    python scripts/bench/compression_bytes.py --sides none powersgd --steps 20
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIDES = {
    "none": ["compression=none"],
    "fp16": ["compression=fp16"],
    "int8": ["compression=int8"],
    "onebit": ["compression=onebit"],
    "powersgd": ["compression=powersgd"],
    "topk": ["compression=topk", "compression.density=0.01"],
    "topk_int8": ["compression=topk_int8", "compression.density=0.01"],
}
USUAL = ["none", "int8", "topk_int8"]
COUNTERS = Path("/proc/net/dev")
PROCESSES = 2


def arguments() -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.epilog = details.partition("\n\n")[0]
    p.add_argument("--steps", type=int, default=60, help="steps that are measured")
    p.add_argument("--warmup", type=int, default=10, help="steps before them")
    p.add_argument("--sides", nargs="+", choices=SIDES, default=USUAL, help="what to run; the first is the reference")
    p.add_argument("--worker", help=argparse.SUPPRESS)
    return p.parse_args()


def loopback_bytes() -> int:
    """Bytes that have gone over the loopback interface of this network namespace."""
    line = next(line for line in COUNTERS.read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[0])


def overrides(side: str, steps: int) -> list[str]:
    where = ["runner=ddp", f"runner.processes={PROCESSES}", "runner.device=cpu"]
    return [*SIDES[side], "model=bert_tiny", f"budget.steps={steps}", *where]


def work(args: argparse.Namespace) -> None:
    """One process of one side; the first one prints its figures as a line of JSON."""
    from lmctl.config.compose import Composer
    from lmctl.parallel.processes import Processes
    from lmctl.plan import Plan
    from lmctl.train.display import quiet_libraries
    from lmctl.train.prepare import prepare
    from lmctl.train.trainer import Trainer

    quiet_libraries()
    plan = Plan.from_config(Composer("train").task(overrides(args.worker, args.warmup + args.steps)))
    prepared = prepare(plan.tokenizer, plan.mix, plan.cache_dir, lambda _: None)
    processes = Processes(plan.runner.on_cpu())
    trainer = Trainer(plan, prepared, processes)
    start, before = 0.0, (0, 0)
    for number, _ in enumerate(trainer.steps(), start=1):
        now = (loopback_bytes(), trainer.state.bytes_sent)
        if number == args.warmup:
            start, before = time.perf_counter(), now
    loss = trainer.validation.scores(trainer.learner)["loss"]
    if processes.first:
        loopback, sent = ((after - then) / args.steps for after, then in zip(now, before, strict=True))
        seconds = (time.perf_counter() - start) / args.steps
        print(
            json.dumps({"loopback": loopback, "sent": PROCESSES * sent, "seconds": seconds, "loss": loss}), flush=True
        )
    processes.close()


def isolated() -> list[str]:
    """Words before a command that give it a network of its own; none where that is not allowed."""
    words = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if (
        all(map(shutil.which, ("unshare", "ip")))
        and not subprocess.run([*words, "true"], capture_output=True).returncode
    ):
        return words
    return []


def run_side(side: str, args: argparse.Namespace, cache: str) -> dict[str, float]:
    """Run one side, and return its figures per step."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}"]
    command = [*launcher, __file__, "--worker", side, "--steps", str(args.steps), "--warmup", str(args.warmup)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LMCTL_CACHE": cache, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*isolated(), *command], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{side} ended with status {done.returncode}:\n{done.stderr[-3000:]}")
    figures: dict[str, float] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return figures


def prepare_text(cache: str) -> None:
    """Tokenise once, before anything is measured."""
    command = [sys.executable, "-m", "lmctl", "prepare", f"cache_dir={cache}"]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)


def main() -> None:
    args = arguments()
    if args.worker:
        work(args)
        return
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        prepare_text(cache)
        for side in args.sides:
            rows[side] = run_side(side, args, cache)
            print(f"{side}: {rows[side]['loopback']:,.0f} bytes a step", file=sys.stderr, flush=True)
    first = rows[args.sides[0]]
    where = "each side in a network namespace of its own" if isolated() else "other programs' traffic included"
    print(f"bytes per step, both processes together, {args.steps} steps after {args.warmup} ({where}):\n")
    print("| side      | on lo      | ratio | gradients  | ratio | ms a step | valid loss |")
    print("|-----------|-----------:|------:|-----------:|------:|----------:|-----------:|")
    for side, row in rows.items():
        lo, sent = row["loopback"], row["sent"]
        print(
            f"| {side:9} | {lo:10,.0f} | {first['loopback'] / lo:5.1f} | {sent:10,.0f} | {first['sent'] / sent:5.1f} "
            f"| {1000 * row['seconds']:9.1f} | {row['loss']:10.3f} |"
        )


if __name__ == "__main__":
    main()
