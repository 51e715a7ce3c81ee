"""Base classes of the group `tracker`: where the metrics of a run go besides its own record."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmctl.core.component import Component


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run when it begins or goes on."""

    id: str
    """32 hexadecimal digits, the same whenever the run goes on."""
    name: str
    folder: Path
    """The run directory."""
    config: Mapping[str, Any]
    """config.yaml by dotted keys: text, numbers, booleans and None, without secrets."""
    step: int
    """Steps that were taken before; 0: the run is new. A tracker may have figures of later ones, which are repeated."""


class Tracker(Component):
    """One tracker. A method that fails costs its figures, and never the run (`lmctl.train.tracking`)."""

    @abstractmethod
    def open(self, run: TrackedRun) -> Any:
        """A started `accelerate.tracking.GeneralTracker`: of a new run, or of the same run as before. It is used in the
        thread that opened it, and may wait for a network."""

    def close(self, opened: Any, status: str) -> None:
        """Finish what `open` returned: the run is "completed", "stopped" (it may go on) or "failed"."""
        opened.finish()


class Tracking(Component):
    """Group `tracker`: any number of trackers."""

    to: Mapping[str, Tracker]
    """Trackers by name."""
