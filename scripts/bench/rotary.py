"""Training steps with rotary positions by lmctl's kernel, and by transformers' own function, in turn in one run.

Milliseconds of processor time a step, medians; text and model are those of `lmctl train` but for the words of a row.

    python scripts/bench/rotary.py
"""

from __future__ import annotations

import argparse
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from statistics import median

import torch
from page import machine, place, show, table
from transformers.models.llama import modeling_llama
from transformers.models.modernbert import modeling_modernbert

from lmctl.config.compose import Composer
from lmctl.core.heap import without_thread_caches
from lmctl.model.fused_rotary import FusedRotary
from lmctl.parallel.processes import Processes
from lmctl.plan import Plan
from lmctl.train.display import quiet_libraries
from lmctl.train.prepare import prepare
from lmctl.train.trainer import Trainer

RUNS = {
    ("mix=mlm", "model=modernbert_tiny"): modeling_modernbert,
    ("mix=mlm", "model=modernbert_small"): modeling_modernbert,
    ("mix=clm", "model=llama_tiny"): modeling_llama,
}
"""Words, and the code whose function is replaced."""


def rows(args: Namespace, cache: str) -> Iterator[list[str]]:
    for words, code in RUNS.items():
        for precision in ("fp32", "bf16"):
            ours, theirs = milliseconds([*words, f"precision={precision}", f"cache_dir={cache}"], vars(code), args)
            yield [f"`{' '.join(words)}`", precision, f"{theirs:.1f}", f"{ours:.1f}", f"{theirs / ours:.2f}"]


def milliseconds(words: list[str], code: dict[str, object], args: Namespace) -> tuple[float, float]:
    """Of a step with the kernel, and of one without."""
    common = ["runner=cpu", f"batch.size={args.rows}", f"batch.seq_len={args.seq_len}", "budget.steps=100000"]
    plan = Plan.from_config(Composer("train").task([*words, *common]))
    prepared = prepare(plan.tokenizer, plan.mix, plan.cache_dir, lambda _: None)
    steps = Trainer(plan, prepared, Processes(plan.runner.on_cpu())).steps()
    fused = code["apply_rotary_pos_emb"]
    assert isinstance(fused, FusedRotary)
    taken: dict[object, list[float]] = {fused: [], fused.original: []}
    for step in range(args.warmup + args.steps):
        for function, seconds in taken.items():
            code["apply_rotary_pos_emb"], began = function, time.process_time()
            next(steps)
            if step >= args.warmup:
                seconds.append(1000 * (time.process_time() - began))
    code["apply_rotary_pos_emb"] = fused
    return median(taken[fused]), median(taken[fused.original])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", type=int, default=16)
    p.add_argument("--seq-len", type=int, default=128)
    p.add_argument("--steps", type=int, default=30, help="of each side that are measured")
    p.add_argument("--warmup", type=int, default=4, help="steps of each side before")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    args = p.parse_args()
    without_thread_caches([])  # as the command does
    quiet_libraries()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(prefix="lmctl-bench-") as cache:
        lines = table(["run", "precision", "transformers ms", "lmctl ms", "ratio"], list(rows(args, cache)))
    threads = f"{args.threads} thread{'s' * (args.threads != 1)}"
    said = f"{args.rows} x {args.seq_len} tokens a step, {args.steps} steps of each, {threads}, on {machine(None)}:"
    show(place("rotary", None), [said, "", *lines], args.write)


if __name__ == "__main__":
    main()
