"""lmctl's side of a benchmark: the plan that `lmctl VERB WORDS` would make, and the runner's own steps.

python lmctl_side.py --work FOLDER train mix=mlm model=bert_mini
"""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from typing import Any

from common import Clock, heldout_loss, side_parser

from lmctl.config.compose import Composer
from lmctl.core.heap import without_thread_caches
from lmctl.parallel.processes import Processes
from lmctl.plan import Plan
from lmctl.train.display import quiet_libraries
from lmctl.train.fastest_precision import settled
from lmctl.train.prepare import prepare
from lmctl.train.trainer import Trainer


def overrides(args: Namespace, cache: str) -> list[str]:
    """The settings that both sides have, in lmctl's words."""
    return [
        "tokenizer=pretrained",
        f"tokenizer.path={args.work / 'tokenizer'}",
        f"model={args.model}",
        f"model.dropout={args.dropout}",
        f"precision={args.precision}",
        "runner=cpu",
        "optim=adamw",
        f"optim.lr={args.lr}",
        f"optim.weight_decay={args.weight_decay}",
        "schedule=linear",
        f"batch.size={args.rows}",
        f"batch.seq_len={args.seq_len}",
        f"budget.steps={args.steps}",
        f"cache_dir={cache}",
        f"seed={args.seed}",
    ]


def main() -> None:
    p = side_parser(__doc__)
    p.add_argument("verb")
    p.add_argument("words", nargs="*", help="overrides besides those that both sides have")
    args = p.parse_args()
    without_thread_caches(sys.argv[1:])  # as the command does
    quiet_libraries()
    clock = Clock(args.warmup, args.steps)
    with tempfile.TemporaryDirectory() as cache:
        plan = Plan.from_config(Composer(args.verb).task([*overrides(args, cache), *args.words]))
        prepared = prepare(plan.tokenizer, plan.mix, plan.cache_dir, lambda _: None)
        processes = Processes(plan.runner.on_cpu())
        trainer = Trainer(settled(plan, prepared, processes, lambda _: None), prepared, processes)
        for report in trainer.steps():
            clock.tick(sum(report.tokens.values()))
    network: Any = trainer.network
    model = network.pretrained()  # a transformers model, judged by the same code as the peer's
    clock.report(heldout_loss=heldout_loss(model, args.work, args.rows))


if __name__ == "__main__":
    main()
