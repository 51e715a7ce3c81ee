"""Small runs whose checkpoints are damaged, with checksums that are right nevertheless."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sessions import session
from small import plan, prepared

from lmctl.config.schema import Budget, Checkpointing, Evaluation
from lmctl.core.files import digest
from lmctl.core.paths import Paths
from lmctl.train.resume_checkpoint import resume
from lmctl.train.run_identity import Identity
from lmctl.train.trainer import Trainer

OLDER, NEWEST = "step-00000002", "step-00000004"


def make_run(folder: Path) -> Path:
    """A finished run of 4 steps with two checkpoints."""
    session(folder, own_plan(), prepared()).run()
    return folder


def own_plan() -> Any:
    often = {"checkpoint": Checkpointing(every=2), "eval": Evaluation(every=4, rows=8)}
    return plan(budget=Budget(steps=4), resume="auto", **often)


def copied(run: Path, folder: Path) -> Path:
    """A copy of a run, and its newest checkpoint."""
    shutil.copytree(run, folder)
    return folder / "checkpoints" / NEWEST


def sign(checkpoint: Path) -> None:
    """Make the manifest that of the files that are there."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    names = sorted(path.name for path in checkpoint.iterdir() if path.name != "manifest.json")
    entries = {
        name: {"size": (checkpoint / name).stat().st_size, "sha256": digest(checkpoint / name)} for name in names
    }
    (checkpoint / "manifest.json").write_text(json.dumps(manifest | {"files": entries}))


def with_state(change: Callable[[dict[str, Any]], Any], name: str = "state.pt") -> Callable[[Path], None]:
    """Change what an archive of a checkpoint holds: by `change` in place, or to what it returns."""

    def act(checkpoint: Path) -> None:
        value = torch.load(checkpoint / name, weights_only=True)
        returned = change(value)
        torch.save(value if returned is None else returned, checkpoint / name)
        sign(checkpoint)

    return act


def resumed(run: Path, trainer: Trainer) -> list[str]:
    """What is said when `trainer` goes on with a run; its state is the one that was loaded."""
    said: list[str] = []
    resume(trainer.plan, Paths(run), trainer, Identity({}, {}, 1), said.append)
    return said
