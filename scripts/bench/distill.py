"""lmctl against `transformers.Trainer`: distilling a masked language model on a CPU.

A 4 x 256 BERT teaches one of 2 x 256 (30,522-row vocabularies, dropout 0.1): half of the loss is the objective's own,
half the divergence from the teacher's answers at temperature 2. The peer is the usual subclass of `Trainer` with a KL
term on whole logits; `--kd-on masked` lets it take the divergence at masked positions only. Both sides read the same
text with the same tokenizer and the same teacher, and are judged on the same held-out rows; they run in turn, each in a
process of its own.

    python scripts/bench/distill.py                        # some minutes; 20 steps, three times
    python scripts/bench/distill.py --steps 60 --repeats 5 --data my.txt
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from statistics import median

import mlm
from common import VOCABULARY_ROWS, parser

HERE = Path(__file__).resolve().parent
SIDES = {"lmctl": "lmctl_distill.py", "peer": "peer_distill.py"}
ASKED = {"tokens_per_cpu_second": "at least 3", "peak_rss_mb": "at most 0.45"}


def arguments() -> Namespace:
    p = parser((__doc__ or "").partition("\n\n")[0])
    p.add_argument("--data", type=Path, help="a UTF-8 text; by default the help topics that come with Python")
    p.add_argument("--repeats", type=int, default=3, help="runs of each side")
    p.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of each side")
    p.add_argument("--kd-on", choices=("all", "masked"), default="all", help="where the peer compares")
    p.add_argument("--only", choices=SIDES, help="run one side alone")
    return p.parse_args()


def make_teacher(work: Path) -> None:
    """An untrained teacher: what it knows does not matter here."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    torch.manual_seed(99)
    sizes = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
    config = BertConfig(vocab_size=VOCABULARY_ROWS, pad_token_id=tokenizer.pad_token_id, **sizes)
    BertForMaskedLM(config).save_pretrained(work / "teacher")
    tokenizer.save_pretrained(work / "teacher")


def run_side(side: str, args: Namespace, work: Path) -> dict[str, float]:
    """Run one side once, and return its figures."""
    command = [sys.executable, str(HERE / SIDES[side]), "--work", str(work)]
    for name in ("steps", "warmup", "rows", "seq_len", "lr", "weight_decay", "seed"):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    threads = str(args.threads)
    environment = os.environ | {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "KD_ON": args.kd_on,
    }
    done = subprocess.run(command, cwd=work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{side} ended with status {done.returncode}:\n{done.stderr[-3000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    args = arguments()
    sides = [args.only] if args.only else list(SIDES)
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory(prefix="lmctl-bench-") as folder:
        mlm.prepare(args, Path(folder))
        make_teacher(Path(folder))
        for repeat in range(args.repeats):
            for side in sides if repeat % 2 == 0 else sides[::-1]:  # neither always goes first
                figures = run_side(side, args, Path(folder))
                runs[side].append(figures)
                print(f"{repeat + 1}/{args.repeats} {side}:", *(f"{k}={v:.5g}" for k, v in figures.items()), flush=True)
    print(f"\n{args.rows} x {args.seq_len} tokens per step, {args.steps} steps, {args.threads} threads, medians:\n")
    print("| side  | tokens per CPU-second | tokens per second | peak memory MB | held-out loss |")
    print("|-------|----------------------:|------------------:|---------------:|--------------:|")
    names = ("tokens_per_cpu_second", "tokens_per_second", "peak_rss_mb", "heldout_loss")
    for side in sides:
        cpu, wall, memory, loss = (median(run[name] for run in runs[side]) for name in names)
        print(f"| {side:5} | {cpu:21.0f} | {wall:17.0f} | {memory:14.0f} | {loss:13.3f} |")
    if not args.only:
        # Two runs that follow each other meet the same load, so each pair is compared first.
        pairs = list(zip(runs["lmctl"], runs["peer"], strict=True))
        for name, asked in ASKED.items():
            print(f"{name}: {median(ours[name] / theirs[name] for ours, theirs in pairs):.2f} of the peer's ({asked})")


if __name__ == "__main__":
    main()
