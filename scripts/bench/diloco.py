"""What rare synchronisation costs and saves: loss after as many tokens, and bytes sent, of the same run whose workers
exchange gradients in every step or weights every so many (`runner=diloco`), over several seeds.

Workers are simulated in one process, so that bytes are counted and nothing is sent; they compute what as many processes
would. DDP, which ends with the weights of one worker to float precision, is that one worker, its bytes those of a ring
all-reduce. All runs of a seed begin with the same weights and see the same rows in the same steps. Losses are those of
the held-out rows after the last step, which ends with an outer step.

    python scripts/bench/diloco.py --out diloco.jsonl
    python scripts/bench/diloco.py --steps 2000 --seeds 1 2 3 4 5 --sides ddp 50 --base "mix=clm model=gpt2_tiny"

Results are appended to --out, and a run that is there already is not run again.
"""

from __future__ import annotations

import argparse
import shlex
import time
from pathlib import Path
from statistics import mean

from seeds import Line, over_seeds, with_error

from lmctl.config.compose import Composer
from lmctl.parallel.processes import Processes
from lmctl.parallel.simulate import as_workers
from lmctl.plan import Plan
from lmctl.train.display import quiet_libraries
from lmctl.train.prepare import Prepared, prepare
from lmctl.train.trainer import Trainer

TOPK = "compression=topk_int8"
DDP = "runner=ddp"
SIDES = {
    "ddp": DDP,
    "topk_int8": f"{DDP} {TOPK}",
    "10": "runner=diloco runner.every=10",
    "50": "runner=diloco runner.every=50",
    "200": "runner=diloco runner.every=200",
    "50_topk_int8": f"runner=diloco runner.every=50 {TOPK}",
    "50_mean": "runner=diloco runner.every=50 runner.outer_lr=1 runner.outer_momentum=0",
}
BASE = "mix=mlm model.layers=1 tokenizer.vocab_size=2048 batch.size=8 batch.seq_len=64"


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--base", default=BASE, help="settings of all runs")
    p.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="the first is compared with")
    p.add_argument("--workers", type=int, default=4)
    p.add_argument("--steps", type=int, default=800)
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    p.add_argument("--out", type=Path, default=Path("diloco.jsonl"))
    return p.parse_args()


def run(side: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Loss, bytes and CPU seconds of one run."""
    played = "runner=cpu" if SIDES[side] == DDP else SIDES[side].replace(DDP, "runner=simulated")
    words = [*shlex.split(args.base), *shlex.split(played)]
    if SIDES[side] != DDP:
        words += [f"runner.workers={args.workers}", "runner.device=cpu"]
    plan = Plan.from_config(Composer("train").task([*words, f"seed={seed}", f"budget.steps={args.steps}"]))
    text = prepare(plan.tokenizer, plan.mix, plan.cache_dir, lambda _: None)
    began = time.process_time()
    found = as_workers(plan.simulated_workers, Processes(on_cpu=True), lambda worker: trained(plan, text, worker))
    return found | {"cpu_seconds": round(time.process_time() - began, 1)}


def trained(plan: Plan, text: Prepared, worker: Processes) -> dict[str, float]:
    trainer = Trainer(plan, text, worker)
    for _ in trainer.steps():
        pass
    state = trainer.state
    loss = trainer.validation.scores(trainer.learner)["loss"]
    return {"loss": loss, "tokens": state.tokens, "sent": state.bytes_sent, "dense": state.bytes_dense}


def measured(args: argparse.Namespace) -> dict[tuple[str, int], Line]:
    """All runs, by side and seed."""
    same = {"base": args.base, "workers": args.workers, "steps": args.steps}
    return over_seeds(
        args.out,
        args.sides,
        args.seeds,
        same,
        lambda side, seed: run(side, seed, args),
        lambda line: f"{line['loss']:.4f}, {line['cpu_seconds']:.0f} s",
    )


def table(args: argparse.Namespace, found: dict[tuple[str, int], Line]) -> str:
    """The Markdown table."""
    first, lines = (
        args.sides[0],
        ["| | bytes a worker sent | of DDP's | loss | difference |", "|---|---:|---:|---:|---:|"],
    )
    dense = max(line["dense"] for line in found.values())
    for side in args.sides:
        runs = [found[side, seed] for seed in args.seeds]
        apart = [line["loss"] - found[first, seed]["loss"] for seed, line in zip(args.seeds, runs, strict=True)]
        sent = mean(line["sent"] for line in runs) or dense
        share = "all" if sent == dense else f"1 / {dense / sent:,.0f}"
        difference = "" if side == first else with_error(apart, "+")
        loss = with_error([line["loss"] for line in runs])
        lines.append(f"| `{SIDES[side]}` | {sent:,.0f} | {share} | {loss} | {difference} |")
    return "\n".join(lines)


def main() -> None:
    args = arguments()
    quiet_libraries()
    found = measured(args)
    tokens = mean(line["tokens"] for line in found.values())
    print(f"\n`{args.base}`, {args.workers} workers, {args.steps:,} steps, {tokens:,.0f} tokens, seeds {args.seeds}\n")
    print(table(args, found))


if __name__ == "__main__":
    main()
