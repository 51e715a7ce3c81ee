"""Micro-batches in the hands of an adversary."""

from __future__ import annotations

from typing import Any

from small_tasks import small_task

from lmctl.adversary.base import AttackedBatch, LossReport, View
from lmctl.config.schema import Budget
from lmctl.parallel.processes import Processes
from lmctl.train.learner import Share
from lmctl.train.step import MicroBatch
from lmctl.train.trainer import Trainer


def trainer_of(alone: Processes, task: str, dropout: float = 0.0, **changes: Any) -> Trainer:
    plan, text = small_task(task, dropout, **{"budget": Budget(steps=2)} | changes)
    return Trainer(plan, text, alone)


def micro_batch(trainer: Trainer, rows: slice = slice(None), window: int = 0) -> MicroBatch:
    """Rows of a window, all of them or some, as the only micro-batch of its step."""
    stream = next(iter(trainer.stream.streams.values()))
    numbers, epochs = stream.rows(8 * window, 8)
    batch = stream.examples.collate(numbers[rows], epochs[rows], stream.draws)
    counts = {f"{batch.task}/{name}": float(count) for name, count in batch.counts().items()}
    return MicroBatch(trainer.step, batch, Share(counts), window, last=True)


class Recorded(AttackedBatch):
    """Looks at the shifts that an adversary asks for."""

    def __init__(self, micro: MicroBatch) -> None:
        self.micro, self.shifts = micro, []
        self.zeros, self.random_shift, self.gradient = micro.zeros, micro.random_shift, micro.gradient

    def forward_backward(self, *views: View, agree: float = 0.0, last: bool = False) -> LossReport:
        self.shifts += [view.shift.detach() for view in views if view.shift is not None]
        return self.micro.forward_backward(*views, agree=agree, last=last)
