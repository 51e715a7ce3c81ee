"""TensorBoard: event files, which `tensorboard --logdir runs` shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from lmctl.core.paths import Paths, Place
from lmctl.tracker.base import TrackedRun, Tracker


@dataclass(frozen=True)
class TensorBoard(Tracker):
    """Event files in the run directory, or in a folder per run below `dir`."""

    dir: Optional[Place] = None

    @property
    def imports(self) -> tuple[str, ...]:
        return ("tensorboard",)

    def open(self, run: TrackedRun) -> Any:
        from accelerate.tracking import TensorBoardTracker

        folder = Paths(run.folder).tensorboard if self.dir is None else Path(self.dir) / run.name
        # Readers leave out what earlier files have of steps that are repeated.
        opened = TensorBoardTracker(folder.name, folder.parent, purge_step=run.step + 1 if run.step else None)
        opened.start()
        # Not Accelerate's `store_init_configuration`, which makes another folder, another run to readers, per start.
        settings = "\n".join(f"    {key}: {value}" for key, value in run.config.items())
        opened.tracker.add_text("config", settings, run.step)
        return opened
