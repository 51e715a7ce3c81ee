"""Weights & Biases, online or offline."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Optional

from lmctl.config.schema import one_of
from lmctl.tracker.base import TrackedRun, Tracker

MODES = ("online", "offline")


@dataclass(frozen=True)
class WandB(Tracker):
    """A run of wandb; what it keeps on the disk is in the run directory."""

    project: str = "lmctl"
    entity: Optional[str] = None
    mode: Optional[str] = None

    def __post_init__(self) -> None:
        if self.mode is not None:
            one_of(MODES, mode=self.mode)

    @property
    def imports(self) -> tuple[str, ...]:
        return ("wandb",)

    def open(self, run: TrackedRun) -> Any:
        import wandb
        from accelerate.tracking import WandBTracker

        # Of what wandb takes by itself, only the machine's load: no command line, no diff of a checkout, no output.
        private = wandb.Settings(
            disable_git=True,
            save_code=False,
            console="off",
            x_disable_meta=True,
            x_save_requirements=False,
            silent=True,
        )
        opened = WandBTracker(
            self.project,
            entity=self.entity,
            id=run.id,
            name=run.name,
            resume="allow",
            config=dict(run.config),
            dir=str(run.folder),
            mode=self._mode(),
            settings=private,
        )
        opened.start()
        return opened

    def _mode(self) -> str:
        """Online only where there is a key; nobody is asked for one."""
        import wandb

        if (chosen := self.mode or os.environ.get("WANDB_MODE")) is not None:
            return chosen
        return "online" if wandb.login(prompt=False, verify=False) else "offline"

    def close(self, opened: Any, status: str) -> None:
        opened.tracker.finish(exit_code=1 if status == "failed" else 0)
