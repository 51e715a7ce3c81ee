"""lmctl's side: the plan that `lmctl train` would make of these overrides, and the runner's own steps."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from typing import Any

from common import VOCABULARY_ROWS, Clock, heldout_loss, side_arguments

from lmctl.config.compose import Composer
from lmctl.parallel.processes import Processes
from lmctl.plan import Plan
from lmctl.train.display import quiet_libraries
from lmctl.train.prepare import prepare
from lmctl.train.trainer import Trainer


def overrides(args: Namespace, cache: str) -> list[str]:
    """The peer's settings in lmctl's words."""
    return [
        "data=text",
        f"data.path={args.work / 'train.txt'}",
        f"data.valid_path={args.work / 'valid.txt'}",
        "data.layout=blank_line_between_documents",
        "tokenizer=pretrained",
        f"tokenizer.path={args.work / 'tokenizer'}",
        "model=bert_mini",
        f"model.pad_vocabulary_to={VOCABULARY_ROWS}",
        "mix=mlm",
        "precision=fp32",
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


def train(args: Namespace, verb: str, *more: str) -> None:
    """Run the plan that `lmctl verb` would make of the peer's settings and `more`, and report."""
    quiet_libraries()
    clock = Clock(args.warmup, args.steps)
    with tempfile.TemporaryDirectory() as cache:
        plan = Plan.from_config(Composer(verb).task([*overrides(args, cache), *more]))
        prepared = prepare(plan.tokenizer, plan.mix, plan.cache_dir, lambda _: None)
        trainer = Trainer(plan, prepared, Processes(plan.runner.on_cpu()))
        for report in trainer.steps():
            clock.tick(sum(report.tokens.values()))
    network: Any = trainer.network
    model = network.pretrained()  # a transformers model, judged by the same code as the peer's
    clock.report(heldout_loss=heldout_loss(model, args.work, args.rows))


if __name__ == "__main__":
    train(side_arguments(__doc__), "train")
