"""`recipe=cramming` against `transformers.Trainer` with the usual settings: pre-training in the same time, then tuning.

First both sides take turns in counting the steps of a minute, each in three processes of its own; validations, which
the recipe makes and the peer does not, count as time. Then each side takes the steps of its `--minutes`: as a schedule
follows the steps, and not the clock, the runs may be stopped, gone on with, and made while the machine does other work.
Both are tuned on SST-2 and MRPC with the recipe's rows, epochs and learning rates, and judged on the development rows.

    python scripts/bench/cramming.py --data data --minutes 30 --seeds 1 2 3 --out cramming.jsonl   # some four hours

Steps and results are appended to --out, and what is there already is not run again. Small networks gain less than
half of what a second thread costs, so two commands side by side, each with seeds of its own and `--run-threads 1`, take
less time for the same steps.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import mean, median

from mlm import train_tokenizer
from page import machine, table
from peer_cramming import TASKS, text_of
from peer_cramming import table as columns_of
from seeds import Line, over_seeds
from turns import HERE, Figures, figures

SIDES = ("lmctl", "Trainer")
PAIRS = 3
"""Minutes counted of each side."""


def ours(args: argparse.Namespace, seed: int, folder: Path, around: dict[str, str], *words: str) -> Figures:
    """The recipe's stages with these words, and what their summaries say."""
    data = args.data.resolve()
    places = {
        "pretrain.data.path": data / "docs_en",
        "sst2.data.path": data / "sst2/train.tsv.gz",
        "sst2.data.valid_path": data / "sst2/dev.tsv",
        "mrpc.data.path": data / "mrpc/train.tsv",
        "mrpc.data.valid_path": data / "mrpc/dev.tsv",
    }
    code = "import sys; from lmctl.cli.main import main; sys.exit(main(sys.argv[1:]) or print('{}'))"
    with tempfile.TemporaryDirectory(dir=folder) as run:
        command = [sys.executable, "-c", code, "train", "recipe=cramming", f"seed={seed}", f"run_dir={run}/run"]
        command += [*(f"stages.{key}={value}" for key, value in places.items()), *words]
        figures(command, folder, around)
        summaries = {path.parent.name: json.loads(path.read_text()) for path in Path(run).glob("run/*/summary.json")}
    found = {"steps": summaries["pretrain"]["steps"]}
    for task in TASKS:
        scores = summaries[task.name]["valid"]
        found[task.name] = next(value for name, value in scores.items() if name.endswith("accuracy"))
    return found


def theirs(args: argparse.Namespace, seed: int, folder: Path, around: dict[str, str], *words: str) -> Figures:
    """The peer's own process."""
    data = args.data.resolve()
    texts = [str(path) for path in sorted((data / "docs_en").iterdir())]
    command = [sys.executable, str(HERE / "peer_cramming.py"), "--tokenizer", str(folder / "tokenizer")]
    return figures([*command, "--text", *texts, "--data", str(data), "--seed", str(seed), *words], folder, around)


def steps_of_a_minute(side: str, args: argparse.Namespace, folder: Path, around: dict[str, str]) -> Figures:
    if side == "Trainer":
        return theirs(args, 0, folder, around, "--count")
    few = [f"stages.{task.name}.budget.steps=1" for task in TASKS]
    return ours(args, 0, folder, around, "stages.pretrain.budget.minutes=1", *few)


def run(side: str, seed: int, steps: int, args: argparse.Namespace, folder: Path, around: dict[str, str]) -> Figures:
    if side == "Trainer":
        return theirs(args, seed, folder, around, "--steps", str(steps))
    budget = ["stages.pretrain.budget.minutes=null", f"stages.pretrain.budget.steps={steps}"]
    return ours(args, seed, folder, around, *budget)


def commoner(folder: Path) -> float:
    """Accuracy of the answer that most development rows have."""
    labels = Counter(columns_of(folder / "dev.tsv", "label"))
    return max(labels.values()) / labels.total()


def main() -> None:
    summary, _, details = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--data", type=Path, required=True, help="folder with docs_en/, sst2/ and mrpc/")
    p.add_argument("--minutes", type=float, default=30)
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    p.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="while steps are counted")
    p.add_argument("--run-threads", type=int, help="of the long runs, if not as many")
    p.add_argument("--out", type=Path, default=Path("cramming.jsonl"))
    args = p.parse_args()
    if missing := [name for name in ("docs_en", "sst2", "mrpc") if not (args.data / name).is_dir()]:
        p.error(f"--data: {args.data} has no folder {', '.join(missing)}")
    around = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory(prefix="lmctl-bench-") as temporary:
        folder = Path(temporary)
        train_tokenizer([text_of(path) for path in sorted((args.data / "docs_en").iterdir())], folder / "tokenizer")
        same: Line = {"counted": "steps of a minute", "threads": args.threads}
        counted = over_seeds(
            args.out,
            SIDES,
            range(PAIRS),
            same,
            lambda side, _: {"steps": steps_of_a_minute(side, args, folder, around)["steps"]},
            lambda line: f"{line['steps']:,} steps of a minute",
        )
        minute = {side: median(counted[side, pair]["steps"] for pair in range(PAIRS)) for side in SIDES}
        steps = {side: round(args.minutes * minute[side]) for side in SIDES}
        around["OMP_NUM_THREADS"] = str(args.run_threads or args.threads)
        found = over_seeds(
            args.out,
            SIDES,
            args.seeds,
            {"minutes": args.minutes, "threads": args.threads},
            lambda side, seed: run(side, seed, steps[side], args, folder, around),
            lambda line: ", ".join(f"{task.name} {line[task.name]:.3f}" for task in TASKS),
        )
    rows = [["always the commoner answer", "", *(f"{100 * commoner(args.data / task.name):.1f}" for task in TASKS)]]
    for side in SIDES:
        columns = [[100 * found[side, seed][task.name] for seed in args.seeds] for task in TASKS]
        cells = [f"{mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})" for values in columns]
        rows.append([side, f"{mean(found[side, seed]['steps'] for seed in args.seeds):,.0f}", *cells])
    print(f"{args.minutes:g} minutes, {args.threads} threads, seeds {args.seeds}, on {machine(None)}:\n")
    print("\n".join(table(["", "steps", "SST-2 %", "MRPC %"], rows)))


if __name__ == "__main__":
    main()
