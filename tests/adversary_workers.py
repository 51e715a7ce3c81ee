"""What test_adversary_runs.py starts in two processes: trains with several adversaries, writes the weights of each."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
from small_tasks import small_task, two_tasks

from lmctl.adversary.fgm import FastGradient
from lmctl.adversary.freelb import FreeLB
from lmctl.adversary.noise import Noise
from lmctl.adversary.pgd import ProjectedGradient
from lmctl.adversary.smart import Smart
from lmctl.augment.word_dropout import WordDropout
from lmctl.core.types import Adversary
from lmctl.run.processes import Processes
from lmctl.run.runner import Runner

CASES: dict[str, tuple[str, Adversary]] = {
    "fgm": ("mlm_nsp", FastGradient()),
    "pgd": ("mlm_nsp", ProjectedGradient()),
    "freelb": ("translate", FreeLB()),
    "smart": ("class", Smart()),
    "noise": ("mlm_nsp", Noise(WordDropout(0.3))),
    "fgm on two tasks": ("two tasks", FastGradient()),
    "smart on two tasks": ("two tasks", Smart()),
}
STEPS = 2


def trained(processes: Processes, task: str, rule: Adversary, micro: int | None) -> Runner:
    make = two_tasks if task == "two tasks" else partial(small_task, task)
    plan, text = make(adversary=rule, micro=micro)
    runner = Runner(plan, text, processes)
    steps = runner.steps()
    for _ in range(STEPS):
        next(steps)
    steps.close()
    return runner


def weights(runner: Runner) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in runner.network.parameters()])


if __name__ == "__main__":
    here = Processes(on_cpu=True)
    found = {name: trained(here, *case, micro=2) for name, case in CASES.items()}
    if here.first:
        flat = {name: (weights(runner), runner.state.bytes_sent) for name, runner in found.items()}
        torch.save(flat, Path(sys.argv[1]))
    here.close()
