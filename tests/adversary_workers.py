"""What test_adversary_runs.py starts in two processes: trains with several adversaries, writes the weights of each."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from small_tasks import small_task

from lmctl.adversary.fgm import FastGradient
from lmctl.adversary.freelb import FreeLB
from lmctl.adversary.noise import Noise
from lmctl.adversary.pgd import ProjectedGradient
from lmctl.adversary.smart import Smart
from lmctl.augment.word_dropout import WordDropout
from lmctl.core.types import Adversary
from lmctl.run.processes import Processes
from lmctl.run.runner import Runner

RULES: dict[str, Adversary] = {
    "fgm": FastGradient(),
    "pgd": ProjectedGradient(),
    "freelb": FreeLB(),
    "smart": Smart(),
    "noise": Noise(WordDropout(0.3)),
}
STEPS = 2


def trained(processes: Processes, rule: Adversary, micro: int | None) -> Runner:
    plan, text = small_task("mlm_nsp", adversary=rule, micro=micro)
    runner, steps = Runner(plan, text, processes), None
    steps = runner.steps()
    for _ in range(STEPS):
        next(steps)
    steps.close()
    return runner


def weights(runner: Runner) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in runner.network.parameters()])


if __name__ == "__main__":
    here = Processes(on_cpu=True)
    found = {name: trained(here, rule, micro=2) for name, rule in RULES.items()}
    if here.first:
        flat = {name: (weights(runner), runner.state.bytes_sent) for name, runner in found.items()}
        torch.save(flat, Path(sys.argv[1]))
    here.close()
