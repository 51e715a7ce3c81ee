"""`recipe=cramming` against `transformers.Trainer` with the usual settings: pre-training in the same time, then tuning.

Both sides read the same text for as many minutes, with as many threads, one after the other; then both are tuned on
SST-2 and MRPC with the recipe's rows, epochs and learning rates, and judged on the development rows.

    python scripts/bench/cramming.py --data data --minutes 30 --seeds 1 2 3      # some four hours
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev

from mlm import train_tokenizer
from page import machine, table
from peer_cramming import TASKS, text_of
from turns import HERE, Figures, figures, in_turns


def ours(args: argparse.Namespace, seed: int, folder: Path, around: dict[str, str]) -> Figures:
    """The recipe's stages, and what their summaries say."""
    run, data = folder / f"run-{seed}", args.data.resolve()
    places = {
        "pretrain.data.path": data / "docs_en",
        "sst2.data.path": data / "sst2/train.tsv.gz",
        "sst2.data.valid_path": data / "sst2/dev.tsv",
        "mrpc.data.path": data / "mrpc/train.tsv",
        "mrpc.data.valid_path": data / "mrpc/dev.tsv",
        "pretrain.budget.minutes": args.minutes,
    }
    words = [f"stages.{key}={value}" for key, value in places.items()]
    code = "import sys; from lmctl.cli.main import main; sys.exit(main(sys.argv[1:]) or print('{}'))"
    command = [sys.executable, "-c", code, "train", "recipe=cramming", f"seed={seed}", f"run_dir={run}", *words]
    figures(command, folder, around)
    names = [task.name for task in TASKS]
    ends = {stage: json.loads((run / stage / "summary.json").read_text()) for stage in ("pretrain", *names)}
    accuracy = {
        task: next(value for name, value in ends[task]["valid"].items() if name.endswith("accuracy")) for task in names
    }
    return {"steps": ends["pretrain"]["steps"], **accuracy}


def theirs(args: argparse.Namespace, seed: int, folder: Path, around: dict[str, str]) -> Figures:
    """The peer's own process."""
    data = args.data.resolve()
    texts = [str(path) for path in sorted((data / "docs_en").iterdir())]
    words = ["--tokenizer", str(folder / "tokenizer"), "--text", *texts, "--data", str(data)]
    words += ["--minutes", str(args.minutes), "--seed", str(seed)]
    return figures([sys.executable, str(HERE / "peer_cramming.py"), *words], folder, around)


def main() -> None:
    summary, _, details = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(description=summary, epilog=details)
    p.add_argument("--data", type=Path, required=True, help="folder with docs_en/, sst2/ and mrpc/")
    p.add_argument("--minutes", type=float, default=30)
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    p.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="lmctl-bench-") as temporary:
        folder = Path(temporary)
        train_tokenizer([text_of(path) for path in sorted((args.data / "docs_en").iterdir())], folder / "tokenizer")
        around = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
        seeds = {name: iter(args.seeds) for name in ("lmctl", "Trainer")}
        sides = {"lmctl": ours, "Trainer": theirs}
        runs = in_turns(list(sides), len(args.seeds), lambda name: sides[name](args, next(seeds[name]), folder, around))
    rows = []
    for side, found in runs.items():
        columns = [[100 * run[task.name] for run in found] for task in TASKS]
        cells = [f"{mean(values):.1f}" + (f" +- {stdev(values):.1f}" if len(values) > 1 else "") for values in columns]
        rows.append([side, f"{mean(run['steps'] for run in found):,.0f}", *cells])
    print(f"{args.minutes:g} minutes, {args.threads} threads, seeds {args.seeds}, on {machine(None)}:\n")
    print("\n".join(table(["", "steps", "SST-2 %", "MRPC %"], rows)))


if __name__ == "__main__":
    main()
