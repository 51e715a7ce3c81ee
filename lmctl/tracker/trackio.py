"""Trackio: a local database with a dashboard, or a Space of the Hugging Face hub."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, Optional

from lmctl.tracker.base import TrackedRun, Tracker


@dataclass(frozen=True)
class Trackio(Tracker):
    """A run of Trackio; a Space that it makes is private."""

    project: str = "lmctl"
    space: Optional[str] = None

    @property
    def imports(self) -> tuple[str, ...]:
        return ("trackio",)

    def open(self, run: TrackedRun) -> Any:
        from accelerate.tracking import TrackioTracker

        opened = TrackioTracker(
            self.project,
            name=f"{run.name}-{run.id[:8]}",  # by its name alone it is found again
            resume="allow",
            config=dict(run.config),
            space_id=self.space,
            private=True,
            embed=False,
        )
        with redirect_stdout(io.StringIO()):  # how to start its dashboard, in colours
            opened.start()
        return opened

    def close(self, opened: Any, status: str) -> None:
        with redirect_stdout(io.StringIO()):
            opened.finish()
