"""Rollback: after a divergence a run goes back to its newest checkpoint, and on with the rows that follow.

The rows between the checkpoint and the divergence are passed over (Chowdhery et al. 2022, PaLM, section 5.1), since the
same weights would meet the same rows again. Where the run goes on is a function of the checkpoint alone: a run that is
killed afterwards meets the same divergence when it is resumed, and goes back again to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from lmctl.core.errors import Diverged
from lmctl.core.shards import local
from lmctl.parallel.processes import Processes
from lmctl.train.checkpoint import Checkpoints
from lmctl.train.checkpoint_reader import Contents
from lmctl.train.trainer import Trainer


def check_weights(trainer: Trainer) -> None:
    """Diverged if a weight is not finite in any process: it is neither saved nor exported. A collective operation."""
    weights = ((name, local(tensor)) for name, tensor in trainer.network.state_dict().items())
    bad = next((name for name, w in weights if w.is_floating_point() and not torch.isfinite(w).all()), None)
    if trainer.processes.sum([bad is not None])[0]:
        what = f"the weight {bad} is" if bad else "a weight of another process is"
        raise Diverged(
            f"diverged at step {trainer.state.step}: {what} not finite; it was not saved",
            f"lower optim.lr (now {trainer.plan.optim.lr:g}); resume=auto goes on from the last checkpoint",
        )


def newest(checkpoints: Checkpoints, processes: Processes, say: Callable[[str], None]) -> Path | None:
    """The newest sound checkpoint of rank 0, in all processes; None if there is none. A collective operation: rank 0
    verifies and sets damaged ones aside."""
    path: Path | None = processes.broadcast(processes.first_does(lambda: next(checkpoints.sound(say), None)))
    return path


def roll_back(trainer: Trainer, contents: Contents, why: str) -> None:
    """Load `contents`, a checkpoint of this very run, keeping the position in the data, the clocks and what was sent.
    The windows passed over count as skipped."""
    trainer.step.zero_grad()  # left by the step that diverged
    now, drawn, fitting = trainer.state, trainer.drawn, trainer.micro.fitting
    trainer.load(contents.weights, contents.state, contents.of_rank(trainer.processes.rank))
    trainer.micro.fitting = fitting
    step = trainer.state.step
    trainer.state = replace(
        trainer.state,
        skipped=drawn.windows - step,
        position=drawn.after.state_dict(),
        seconds=now.seconds,
        cpu_seconds=now.cpu_seconds,
        aside_seconds=now.aside_seconds,
        bytes_sent=now.bytes_sent,
        bytes_dense=now.bytes_dense,
        rollbacks=[*now.rollbacks, {"from": now.step, "to": step, "why": why}],
    )
