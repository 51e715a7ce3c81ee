"""Whole runs of small plans in this process, with the record and checkpoints that a run of the command line leaves."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from walked import alone

from lmctl.core.paths import Paths
from lmctl.plan import Plan
from lmctl.train.checkpoint import Checkpoints
from lmctl.train.checkpoint_reader import read
from lmctl.train.display import Display
from lmctl.train.loss_plot import Plotter
from lmctl.train.prepare import Prepared
from lmctl.train.run_identity import Identity
from lmctl.train.session import Session
from lmctl.train.trainer import Trainer
from lmctl.train.validation import Validation, ValidationResult


class Ears(Display):
    """Remembers what is said instead of saying it."""

    def __init__(self) -> None:
        super().__init__(silent=True)
        self.heard: list[str] = []

    def say(self, text: str) -> None:
        self.heard.append(text)


class Unseen(Plotter):
    """Draws no curves, which takes longer than all else that a short run does."""

    def draw(self, baseline: dict[str, float]) -> None: ...


def node(component: Any) -> dict[str, Any]:
    """A component as a config has it."""
    kind = type(component)
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **asdict(component)}


def session(folder: Path, plan: Plan, prepared: Prepared, resume: bool = False) -> Session:
    """A run in `folder` that is about to begin, or with `resume` to go on from its newest checkpoint."""
    paths = Paths(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"precision": node(plan.precision), "model": node(plan.model), "early_stop": asdict(plan.early_stop)}
    trainer = Trainer(plan, prepared, alone())
    if resume:
        found = read(next(Checkpoints(paths.checkpoints, 2).sound(print)))
        trainer.load(found.weights, found.state, found.of_rank(0))
    made = Session(trainer, paths, Ears(), Identity({}, {}, 1), config)
    made.plotter = Unseen(paths, made.display.say)
    return made


def lines(folder: Path, split: str) -> list[dict[str, Any]]:
    """The record of one split."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["split"] == split]


def scripted(monkeypatch, values: list[float], name: str) -> None:
    """Let validations find `values` for the figure `name`, one after the other."""
    measured, script = Validation.measured, itertools.chain(values, itertools.repeat(values[-1]))

    def found(self: Validation, learner) -> ValidationResult:
        real = measured(self, learner)
        return replace(real, figures=real.figures | {name: next(script)})

    monkeypatch.setattr(Validation, "measured", found)
