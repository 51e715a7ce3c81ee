"""One or more trackers beside the record: `tracker=mlflow`, `tracker=[tensorboard,mlflow]`."""

from __future__ import annotations

from dataclasses import dataclass

from lmctl.tracker.base import Tracker, Tracking


@dataclass(frozen=True)
class Trackers(Tracking):
    """The same metrics for each."""

    to: dict[str, Tracker]

    def __post_init__(self) -> None:
        if not self.to:
            raise ValueError("to must name at least one tracker (tracker=none: metrics are in the run directory only)")
