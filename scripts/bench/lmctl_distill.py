"""lmctl's side of distill.py: the plan that `lmctl distill` would make, and the runner's own steps."""

from __future__ import annotations

import tempfile
from typing import Any

from common import Clock, heldout_loss, side_arguments
from lmctl_mlm import overrides

from lmctl.config.compose import Composer
from lmctl.plan import Plan
from lmctl.run.display import quiet_libraries
from lmctl.run.prepare import prepare
from lmctl.run.processes import Processes
from lmctl.run.runner import Runner


def main() -> None:
    args = side_arguments(__doc__)
    quiet_libraries()
    clock = Clock(args.warmup, args.steps)
    with tempfile.TemporaryDirectory() as cache:
        words = [*overrides(args, cache), "model.layers=2", f"teacher={args.work / 'teacher'}"]
        plan = Plan.from_config(Composer("distill").task(words))
        prepared = prepare(plan.tokenizer, plan.mix, plan.cache_dir, lambda _: None)
        runner = Runner(plan, prepared, Processes(plan.runner.on_cpu()))
        for report in runner.steps():
            clock.tick(sum(report.tokens.values()))
    network: Any = runner.network
    model = network.pretrained()  # a transformers model, judged by the same code as the peer's
    clock.report(heldout_loss=heldout_loss(model, args.work, args.rows))


if __name__ == "__main__":
    main()
