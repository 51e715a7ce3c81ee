"""What one process and two train with adversaries, to be compared."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from small import weights
from small_tasks import small_task, two_tasks
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from lmctl.adversary.fgm import FastGradient
from lmctl.adversary.freelb import FreeLB
from lmctl.adversary.noise import Noise
from lmctl.adversary.pgd import ProjectedGradient
from lmctl.adversary.smart import Smart
from lmctl.augment.word_dropout import WordDropout
from lmctl.compression.compressor import Compressor
from lmctl.compression.quantise import Int8
from lmctl.parallel.processes import Processes
from lmctl.train.trainer import Trainer

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "fgm": ("mlm_nsp", {"adversary": FastGradient()}),
    "pgd": ("mlm_nsp", {"adversary": ProjectedGradient()}),
    "freelb": ("translate", {"adversary": FreeLB()}),
    "smart": ("class", {"adversary": Smart()}),
    "noise": ("mlm_nsp", {"adversary": Noise(WordDropout(0.3))}),
    "two tasks": ("two tasks", {"adversary": Smart()}),
    "compressed": ("mlm_nsp", {"adversary": FastGradient(), "compression": Compressor(quantise=Int8())}),
}
STEPS = 2


def trainer_of(processes: Processes, task: str, **changes: Any) -> Trainer:
    make = two_tasks if task == "two tasks" else partial(small_task, task)
    return Trainer(*make(**changes), processes)


def trained(trainer: Trainer) -> torch.Tensor:
    """The weights after some steps."""
    steps = trainer.steps()
    for _ in range(STEPS):
        next(steps)
    steps.close()
    return weights(trainer)


def found(here: Processes) -> dict[str, tuple[torch.Tensor, int]]:
    """By case the weights, and how many values DDP sent."""
    cases = {}
    for name, (task, changes) in CASES.items():
        trainer, sent = trainer_of(here, task, micro=2, **changes), []

        def counted(state, bucket):  # torch compares annotations, where there are any
            state.append(bucket.buffer().numel())
            return allreduce_hook(None, bucket)

        if "compression" not in changes:
            trainer.strategy.wrapped.register_comm_hook(sent, counted)
        cases[name] = (trained(trainer), sum(sent))
    return cases
