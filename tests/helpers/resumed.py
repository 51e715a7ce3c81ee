"""Runs that are broken off and gone on with by new objects, beside runs that nobody disturbed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lmctl.train.checkpoint import Checkpoints
from lmctl.train.checkpoint_reader import read
from lmctl.train.trainer import Trainer


def goes_on_to_the_bit(
    make: Callable[[], Trainer], after: int, folder: Path, before_loading: Callable[[Trainer], Any] = lambda trainer: 0
) -> tuple[Trainer, list[Any]]:
    """What `make` makes trains to its end; another goes on from its checkpoint `after` so many steps, with the same
    losses and to the same bits. The undisturbed trainer and its reports."""
    whole, reports = make(), []
    for report in whole.steps():
        reports.append(report)
        if report.step == after:
            parts = whole.step.average.tensors(), whole.state_dict(), whole.own_state()
            saved = Checkpoints(folder, 2).save(after, *parts)
    again = make()
    before_loading(again)
    contents = read(saved)
    again.load(contents.weights, contents.state, contents.of_rank(0))
    rest = list(again.steps())
    assert [report.losses.totals for report in rest] == [report.losses.totals for report in reports[after:]]
    one, other = whole.learner.state_dict(), again.learner.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    return whole, reports
