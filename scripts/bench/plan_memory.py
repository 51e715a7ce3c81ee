"""How well `lmctl plan` predicts memory: predicted and measured peaks of short runs, each in a process of its own.

    python scripts/bench/plan_memory.py                       # all configs, a Markdown table on standard output
    python scripts/bench/plan_memory.py --only bert_mini lstm # those whose name contains one of these words

Each config is prepared first, so that tokenising does not count, then planned, then trained for some steps on the CPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

CONFIGS = {
    "bert_tiny mlm_nsp": "",
    "bert_mini mlm, 32 rows": "model=bert_mini mix=mlm batch.size=32",
    "bert_mini mlm, 32 rows, checkpointing": "model=bert_mini mix=mlm batch.size=32 gradient_checkpointing=true",
    "bert_mini mlm, 32 rows by 8": "model=bert_mini mix=mlm batch.size=32 batch.micro=8",
    "bert_mini mlm, 16 rows, bf16": "model=bert_mini mix=mlm batch.size=16 precision=bf16",
    "gpt2_tiny clm": "mix=clm model=gpt2_tiny",
    "gpt2_mini clm": "mix=clm model=gpt2_mini",
    "t5_tiny denoise": "mix=denoise",
    "transformer_mt_tiny translate": "mix=translate",
    "lstm_tiny clm_stream": "mix=clm_stream",
    "bert_tiny classify": "mix=classify",
    "bert_tiny multitask": "mix=multitask",
}
COMMON = ["runner=cpu", "eval.rows=32", "eval.every=1000"]
MIB = 2**20


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=15, help="optimiser steps of each run")
    p.add_argument("--only", nargs="*", default=[""], help="words, one of which a config's name must contain")
    arguments = p.parse_args()
    chosen = {name: words for name, words in CONFIGS.items() if any(word in name for word in arguments.only)}
    print("| config | predicted MiB | measured MiB | predicted / measured |\n|---|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, words) in enumerate(chosen.items()):
            predicted, measured = both(words.split(), Path(folder), f"run-{number}", arguments.steps)
            row = f"| {name} | {predicted / MIB:,.0f} | {measured / MIB:,.0f} | {predicted / measured:.2f} |"
            print(row, flush=True)


def both(words: list[str], folder: Path, run: str, steps: int) -> tuple[int, int]:
    """Predicted and measured peak memory in bytes."""
    prepared = [word for word in words if word.partition("=")[0] in ("mix", "model")]
    lmctl("prepare", *prepared, cwd=folder)
    lmctl("plan", *words, *COMMON, f"out={run}.json", cwd=folder)
    lmctl("train", *words, *COMMON, f"budget.steps={steps}", f"name={run}", cwd=folder)
    plan = json.loads((folder / f"{run}.json").read_text())
    summary = json.loads((folder / "runs" / run / "summary.json").read_text())
    return plan["memory"]["peak_bytes"], summary["peak_memory_bytes"]


def lmctl(*words: str, cwd: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "lmctl", *words], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"lmctl {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")


if __name__ == "__main__":
    main()
