"""How well `lmctl plan` predicts memory: predicted and measured peaks of short runs, each in a process of its own.

    python scripts/bench/plan_memory.py                       # all configs, a Markdown table on standard output
    python scripts/bench/plan_memory.py --only bert_mini lstm # those whose name contains one of these words
    python scripts/bench/plan_memory.py --write               # all, and the table of docs/plan.md anew

Each config is prepared first, so that tokenising does not count, then planned, then trained for some steps on the CPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from page import PAGE, show, table

LORA = "init_from=runs/run-0 model=pretrained tokenizer=pretrained tokenizer.path=runs/run-0/model model.lora_rank=8"
"""Starts from the first config's run."""
CONFIGS = {
    "bert_tiny": "model=bert_tiny",
    "modernbert_tiny, mlm": "model=modernbert_tiny mix=mlm",
    "gpt2_tiny, clm": "mix=clm",
    "llama_tiny, clm": "mix=clm model=llama_tiny",
    "t5_tiny, denoise": "mix=denoise",
    "transformer_mt_tiny, translate": "mix=translate",
    "rnn_mt_tiny, translate": "mix=translate model=rnn_mt_tiny",
    "lstm_tiny, clm_stream": "mix=clm_stream",
    "gru, clm_stream": "mix=clm_stream model=gru",
    "bilstm_tiny, classify": "mix=classify model=bilstm_tiny",
    "bert_tiny, classify": "model=bert_tiny mix=classify",
    "bert_tiny, multitask": "model=bert_tiny mix=multitask",
    "bert_tiny, checkpointing": "model=bert_tiny gradient_checkpointing=true",
    "gpt2_tiny, clm, checkpointing": "mix=clm gradient_checkpointing=true",
    "t5_tiny, denoise, checkpointing": "mix=denoise gradient_checkpointing=true",
    "bert_tiny, bf16": "model=bert_tiny precision=bf16",
    "bert_tiny, bf16_pure": "model=bert_tiny precision=bf16_pure",
    "bert_tiny, fp16": "model=bert_tiny precision=fp16",
    "bert_tiny, fp8 emulated": "model=bert_tiny precision=fp8 precision.emulate=true",
    "bert_tiny, int8": "model=bert_tiny precision=int8",
    "bert_tiny, int8_weights": "model=bert_tiny precision=int8_weights",
    "bert_tiny, int8_full": "model=bert_tiny precision=int8_full",
    "bert_tiny, int8_lora": f"precision=int8_lora {LORA}",
    "bert_tiny, nf4_lora": f"precision=nf4_lora {LORA}",
    "bert_tiny, adamw8bit": "model=bert_tiny optim=adamw8bit",
    "bert_tiny, freelb": "model=bert_tiny adversary=freelb",
    "bert_tiny, topk_int8, 4 workers simulated": "model=bert_tiny compression=topk_int8 compression.simulate_workers=4",
    "bert_tiny, 2 processes": "model=bert_tiny runner=ddp runner.processes=2 runner.device=cpu",
    "bert_mini, mlm, 32 rows": "model=bert_mini mix=mlm batch.size=32",
    "bert_mini, mlm, 32 rows, checkpointing": "model=bert_mini mix=mlm batch.size=32 gradient_checkpointing=true",
    "bert_mini, mlm, 32 rows by 8": "model=bert_mini mix=mlm batch.size=32 batch.micro=8",
    "bert_mini, mlm, 16 rows, bf16": "model=bert_mini mix=mlm batch.size=16 precision=bf16",
    "gpt2_mini, clm": "mix=clm model=gpt2_mini",
}
COMMON = ["eval.rows=32", "eval.every=1000"]
PREPARED = ("mix", "model", "tokenizer", "tokenizer.path", "init_from")
"""Keys that `lmctl prepare` takes, too."""
MIB = 2**20


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=40, help="optimiser steps of each run")
    p.add_argument("--only", nargs="*", default=[""], help="words, one of which a config's name must contain")
    p.add_argument("--write", action="store_true", help="put the table into docs/plan.md")
    p.add_argument("--keep", type=Path, help="a new folder that plans and runs are left in")
    arguments = p.parse_args()
    chosen = [n for n, name in enumerate(CONFIGS) if any(word in name for word in arguments.only)]
    if any("lora" in name for n, name in enumerate(CONFIGS) if n in chosen):
        chosen = sorted({0, *chosen})
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        for number, (name, words) in enumerate(CONFIGS.items()):
            if number in chosen:
                predicted, measured = both(words.split(), folder, f"run-{number}", arguments.steps)
                cells = f"{predicted / MIB:,.0f}", f"{measured / MIB:,.0f}", f"{predicted / measured:.2f}"
                rows.append((name, *cells))
                print(*rows[-1], sep="   ", file=sys.stderr, flush=True)
    heads = ("run", "predicted MiB", "measured MiB", "predicted / measured")
    show("plan memory", table(heads, rows), arguments.write, PAGE.with_name("plan.md"))


def both(words: list[str], folder: Path, run: str, steps: int) -> tuple[int, int]:
    """Predicted and measured peak memory in bytes, of one process."""
    here = [*words, *COMMON, *([] if any(word.startswith("runner=") for word in words) else ["runner=cpu"])]
    prepare(folder, *(word for word in words if word.partition("=")[0] in PREPARED))
    lmctl("plan", *here, f"out={run}.json", cwd=folder)
    lmctl("train", *here, f"budget.steps={steps}", f"name={run}", cwd=folder)
    plan = json.loads((folder / f"{run}.json").read_text())
    summary = json.loads((folder / "runs" / run / "summary.json").read_text())
    processes = next((int(word.partition("=")[2]) for word in words if word.startswith("runner.processes=")), 1)
    return plan["memory"]["peak_bytes"], summary["peak_memory_bytes"] // processes


@cache
def prepare(folder: Path, *words: str) -> None:
    lmctl("prepare", *words, cwd=folder)


def lmctl(*words: str, cwd: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "lmctl", *words], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"lmctl {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")


if __name__ == "__main__":
    main()
